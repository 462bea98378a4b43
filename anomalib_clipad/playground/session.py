"""What the playground asks of one inspector: the answer to a question, with as little work as its changes need."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.images.picture import Picture
from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.predictor.base import Shown
from anomalib_clipad.predictor.live import DROPPED
from anomalib_clipad.vision.joining import SHARES

_TEMPLATES = ("a photo of a {}.", "a close-up photo of the {}.", "a photo of the {} for visual inspection.")
"""Of prompts that are typed; the built-in ones have their own."""


@dataclass(frozen=True)
class Question:
    """What is asked about an image.

    Attributes:
        class_name: What it shows.
        normal: States of a good one, such as ``flawless {}``; with ``abnormal``, in place of the built-in prompts.
        abnormal: States of a defective one.
        text_weight: Share of the text where there are normal images.
        threshold: Score from which on it is defective; ``None`` to decide by the rate.
        false_alarm_rate: Share of normal images that may be called defective; it needs several of them.
    """

    class_name: str = "object"
    normal: tuple[str, ...] = ()
    abnormal: tuple[str, ...] = ()
    text_weight: float = SHARES["spread"]
    threshold: float | None = 0.5
    false_alarm_rate: float | None = None

    @property
    def prompts(self) -> Any:
        """As ``ClipAD`` takes them.

        Raises:
            ValueError: If there are states of one kind only.
        """
        if not self.normal and not self.abnormal:
            return "industrial"
        if not (self.normal and self.abnormal):
            msg = "Prompts need states of both kinds, good and defective, one a line; or none, for the built-in ones."
            raise ValueError(msg)
        return {"normal": list(self.normal), "abnormal": list(self.abnormal), "templates": list(_TEMPLATES)}


class Session:
    """Answers questions with one model, one after the other, whoever asks.

    Args:
        backbone: CLIP model, as of ``ClipAD``.
        **settings: Other arguments of ``Inspector``.
    """

    def __init__(self, backbone: str = "clipad-mini", **settings: Any) -> None:
        self.backbone, self.settings = backbone, settings
        self._inspector = Inspector("object", backbone=backbone, **settings)
        self._live = self._inspector.live("the playground")
        self._lock = Lock()
        self._known: list[str] = []

    @property
    def passes(self) -> int:
        """How many batches went through the tower."""
        return self._live.passes

    def answer(self, picture: Picture, references: Sequence[Picture], question: Question) -> Finding:
        """Look at an image.

        Raises:
            ValueError: If something asked is not valid, or there are too few normal images for the rate; the message
                says how many it takes.
        """
        with self._lock, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=DROPPED)  # it is calibrated anew
            typed = bool(question.normal or question.abnormal)
            prompts = question.prompts if typed else self.settings.get("prompts", question.prompts)
            shown = [self._live.show(one, f"normal image {number}", True) for number, one in enumerate(references, 1)]
            known = [one.identity.digest for one in shown]
            self._live.look_for(question.class_name, prompts, question.text_weight, anew=known != self._known)
            self._compare_with(shown, known)
            self._calibrate(shown, question)
            self._inspector.decide_by(question.threshold, question.false_alarm_rate)
            last = self._inspector.last
            if last is not None and np.array_equal(last.pixels, picture.pixels):
                return self._inspector.look_again()
            return self._inspector.inspect(picture)

    def _compare_with(self, shown: Sequence[Shown], known: list[str]) -> None:
        if known != self._known:
            if shown:
                self._live.fit(shown)
            else:
                self._live.forget_references()
            self._known = known

    def _calibrate(self, shown: Sequence[Shown], question: Question) -> None:
        if question.false_alarm_rate is None:
            self._live.keep_normal(None)
        elif self._live.normal is None:  # the first time, or since something was changed
            if len(shown) < 2:
                msg = f"A false-alarm rate needs several normal images to compare with; there are {len(shown)}."
                raise ValueError(msg)
            self._live.calibrate_left_out(shown, None)

    def command(self, question: Question, image: str, references: bool) -> str:
        """The line of ``anomalib-clipad inspect`` that does the same, and the file of prompts that it needs, if any."""
        words = ["anomalib-clipad", "inspect", image, "--class-name", question.class_name, "--backbone", self.backbone]
        words += [word for name, value in self.settings.items() for word in (f"--{name}", _written(value))]
        if references:
            words += ["--references", "path/to/normal", "--text_weight", f"{question.text_weight:g}"]
        if question.false_alarm_rate is not None:
            words += ["--false_alarm_rate", f"{question.false_alarm_rate:g}"]
        elif question.threshold is not None:
            words += ["--threshold", f"{question.threshold:g}"]
        if not question.normal:
            return shlex.join(words)
        import yaml

        prompts = yaml.safe_dump(question.prompts, sort_keys=False, width=1000)
        return f"{shlex.join([*words, '--prompts', 'prompts.yaml'])}\n\n# prompts.yaml\n{prompts}"


def _written(value: Any) -> str:
    """A value as a command line takes it: ``null``, ``true`` and ``[2, 3]``; a text as it is."""
    return value if isinstance(value, str) else json.dumps(value)


def read_states(text: str) -> tuple[str, ...]:
    r"""States of a text, one a line; the class name goes where ``{}`` is, or before.

    >>> read_states("flawless {}\n\nscratched\n")
    ('flawless {}', 'scratched {}')
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return tuple(line if "{}" in line else f"{line} {{}}" for line in lines)


def as_pixels(finding: Finding, opacity: float) -> dict[str, NDArray[np.uint8]]:
    """Pictures of a finding: image, map over it, mask (H, W, 3), of one size."""
    image = finding.image
    overlay = np.asarray(finding.overlay(), np.float32)
    share = np.float32(opacity)
    shown = (image * (1 - share) + overlay * share).round().astype(np.uint8)
    mask = np.repeat(finding.mask[..., None], 3, axis=2).astype(np.uint8) * 255
    return {"image": image, "map": shown, "mask": mask}
