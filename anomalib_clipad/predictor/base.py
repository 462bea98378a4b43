"""What scores images: one interface for models in torch and for exported files, with all checks inside."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.images.alike import (
    Identity,
    Known,
    PlainIdentity,
    check_apart,
    distinct,
    from_plain,
    identify,
    to_plain,
)
from anomalib_clipad.images.picture import Picture
from anomalib_clipad.verdicts.defect_scores import DefectScores
from anomalib_clipad.verdicts.normal_scores import Limits, NormalScores
from anomalib_clipad.vision.tile_grid import TileGrid

from .frame import WHOLE
from .taught import Taught

Prepared = NDArray[np.float32]
BATCH = 8
"""Images that go through the tower together."""
Look = Callable[[NDArray[np.float32], tuple[int, int]], NDArray[np.float32]]
"""From the map of an image of a height and width to what is looked at of it."""


class Scored(NamedTuple):
    """Scores of images.

    Attributes:
        score: Of each image (B,).
        anomaly_map: Of each image (B, h, w).
        text: Scores as of the text alone (B,), where it is joined with a comparison with images and that is known.
        references: Scores as of that comparison alone (B,), likewise.
    """

    score: NDArray[np.float32]
    anomaly_map: NDArray[np.float32]
    text: NDArray[np.float32] | None = None
    references: NDArray[np.float32] | None = None


class Shown(NamedTuple):
    """An image that a predictor is fitted to or calibrated on.

    Attributes:
        identity: Which image it is.
        prepared: What the predictor takes of it.
        size: Height and width in pixels.
    """

    identity: Identity
    prepared: Prepared
    size: tuple[int, int]


class Measured(NamedTuple):
    """What calibration needs of normal images.

    Attributes:
        score: Image scores (n,).
        peak: Maxima of their maps (n,).
        identities: Which images they are.
    """

    score: NDArray[np.float32]
    peak: NDArray[np.float32]
    identities: tuple[Identity, ...]


class Predictor(ABC):
    """Something that scores images, and knows what its scores depend on.

    Attributes:
        class_name: What it looks for defects of, if it knows.
        references: The normal images it compares with, where it knows which they are.
        taught: What it was taught, if anything: those of the references that were ticked as good.
        frame: ``whole``, or what the pre-processing cuts off or adds, so that a map does not lie on its image.
        own_limits: The largest score and map value that are not defective, by the model's own decision; ``None`` if it
            has none.
        fitted: Whether the model's own decision was fitted to images; else it is the midpoint of its scale.
        precision: Number format in which its tower computes.
        version: How often something has changed that scores depend on.
    """

    class_name: str | None
    references: tuple[Identity, ...] = ()
    taught: Taught | None = None
    _known: tuple[tuple[Any, Any, Any], Known | None] = ((None, None, None), None)  # of which images, and these
    frame: str = WHOLE
    fitted: bool = False
    precision: str = "float32"
    version: int = 0

    @property
    @abstractmethod
    def own_limits(self) -> Limits | None:
        """See the class."""

    @property
    @abstractmethod
    def normalized(self) -> bool:
        """Whether scores lie in [0, 1]."""

    @property
    @abstractmethod
    def normal(self) -> NormalScores | None:
        """Scores of normal images on the scale of ``score``, if it is calibrated."""

    @property
    def raw_normal(self) -> NormalScores | None:
        """The same as of ``measure``, before anything is fitted to other images."""
        return self.normal

    @abstractmethod
    def keep_normal(self, normal: NormalScores | None) -> None:
        """Take over scores of normal images as of ``measure``, or none."""

    @abstractmethod
    def score(self, images: Sequence[Prepared]) -> Scored:
        """Score prepared images.

        Raises:
            ValueError: If a score or map value is no number.
        """

    def score_and_keep(self, image: Prepared) -> Scored:
        """Score one prepared image; where ``version`` moves then, ``rescore`` of a model in torch scores it anew."""
        return self.score([image])

    @abstractmethod
    def fit(self, shown: Iterable[Shown], memory_size: int | None = None) -> None:
        """Compare with these normal images from now on; copies count once.

        Args:
            shown: Normal images.
            memory_size: Patches a stage, and with tiles a place, that are kept of them; by default all.

        Raises:
            ValueError: If that is not possible, or the images do not fit the tiles.
        """

    @abstractmethod
    def _prepare(self, picture: Picture) -> Prepared: ...

    @abstractmethod
    def _raw(self, images: Sequence[Prepared]) -> Scored:
        """Scores before anything is fitted to other images, of which calibration is taken."""

    @property
    @abstractmethod
    def grid(self) -> TileGrid | None:
        """Its tiles, if it has any."""

    @property
    @abstractmethod
    def aspect(self) -> float:
        """Width over height of the references; 0 if that is not known."""

    def prepare(self, picture: Picture) -> Prepared:
        """What it takes of an image that is to be scored; called from several threads.

        Raises:
            ValueError: If the image is too small for the tiles, or, where they are aligned, of another shape than the
                references.
        """
        self.check_size(*picture.pixels.shape[:2])
        return self._prepare(picture)

    def check_size(self, height: int, width: int) -> None:
        """Check the height and width of an image in pixels; as ``prepare``."""
        if (grid := self.grid) is not None:
            grid.check_source(height, width)
            grid.check_places(height, width, self.aspect)

    def show(self, picture: Picture, name: str, reference: bool = False) -> Shown:
        """What it takes of a normal image.

        Args:
            picture: The image.
            name: What it is called.
            reference: Whether it is to be compared with; then its shape does not have to be that of earlier references.

        Raises:
            ValueError: As of ``prepare``.
        """
        height, width = picture.pixels.shape[:2]
        if not reference:
            self.check_size(height, width)
        elif self.grid is not None:
            self.grid.check_source(height, width)
        return Shown(identify(picture, name), self._prepare(picture), (height, width))

    def known(self, calibration: bool = True) -> Known | None:
        """The images it was fitted to and calibrated on, which it cannot judge; ``None`` if there are none.

        Args:
            calibration: Whether to count calibration images and known defects.
        """
        normal = self.normal if calibration else None
        defects = None if normal is None else normal.defects
        parts = (
            self.references,
            () if normal is None else normal.identities,
            () if defects is None else defects.identities,
        )
        if any(now is not then for now, then in zip(parts, self._known[0], strict=True)):
            found = (*parts[0], *_identities(parts[1]), *_identities(parts[2]))
            self._known = (parts, Known(found) if found else None)
        return self._known[1]

    def measure(self, shown: Iterable[Shown], look: Look | None = None) -> Measured:
        """Score normal images.

        Args:
            shown: The images.
            look: What is looked at of a map, if not all of it.
        """
        identities: list[Identity] = []
        scores: list[NDArray[np.float32]] = []
        peaks: list[float] = []
        for batch in batches(shown):
            found = self._raw([one.prepared for one in batch])
            identities += [one.identity for one in batch]
            scores.append(found.score)
            peaks += peaks_of(batch, found.anomaly_map, look)
        if not identities:
            msg = "There are no calibration images."
            raise ValueError(msg)
        return Measured(np.concatenate(scores), np.array(peaks, np.float32), tuple(identities))

    def calibrate(self, shown: Iterable[Shown], rate: float | None, look: Look | None = None) -> None:
        """Let verdicts follow a false-alarm rate among these normal images; copies count once.

        Args:
            shown: Normal images, none of which is a reference.
            rate: The false-alarm rate; ``None`` for p-values alone.
            look: As of ``measure``.

        Raises:
            ValueError: If there are too few, one is a reference or of a list that was ticked to teach the model, or a
                score is no number.
        """
        self.certify(self.measure(shown, look), rate)

    def certify(self, measured: Measured, rate: float | None, left_out: bool = False) -> None:
        """Calibrate on what was measured, here or elsewhere.

        Args:
            measured: Of ``measure``.
            rate: As of ``calibrate``.
            left_out: Whether the images are the references, each judged by the others.
        """
        if self.taught is not None:
            self.taught.check_apart(measured.identities)
        if not left_out:
            check_apart(self.references, measured.identities)
        before = self.raw_normal
        defects = None if before is None else before.defects  # scores of the same model, which go on to hold
        if defects is not None:
            check_apart(measured.identities, _identities(defects.identities), ("calibration image", "known defect"))
        score, peak, kept = _each_once(measured, "calibration images")
        normal = NormalScores(score, peak, rate, left_out, self.precision, kept, defects)
        if rate is not None:
            normal.limits()  # whether so many images allow it
        self.keep_normal(normal)
        doubt = None if self.normal is None else self.normal.doubt()
        if doubt is not None:
            warnings.warn(doubt, stacklevel=2)

    def certify_defects(self, measured: Measured, rate: float | None) -> None:
        """Let verdicts follow a miss rate among these known defects, too, measured here or elsewhere.

        Args:
            measured: Of ``measure``; copies count once.
            rate: Largest share of defects that are called good; ``None`` for their scores alone.

        Raises:
            ValueError: If nothing is calibrated, there are too few, one is a reference or a calibration image, or a
                score is no number.
        """
        normal = self.raw_normal
        if normal is None:
            msg = (
                "Known defects set the second of two rates, and nothing sets the first: pass calibration, a folder of "
                "normal images, with false_alarm_rate."
            )
            raise ValueError(msg)
        check_apart(self.references, measured.identities, ("reference", "known defect"))
        check_apart(_identities(normal.identities), measured.identities, ("calibration image", "known defect"))
        score, peak, kept = _each_once(measured, "known defects")
        self.keep_normal(replace(normal, defects=DefectScores(score, peak, rate, kept)))

    def calibrate_left_out(self, shown: Sequence[Shown], rate: float | None, look: Look | None = None) -> None:
        """Calibrate on the references themselves, each judged by all the others.

        Args:
            shown: The images of ``fit``.
            rate: As of ``calibrate``.
            look: As of ``measure``.

        Raises:
            ValueError: If that is not possible, or there are too few.
        """
        del shown, rate, look
        msg = "An exported file does not know its references one by one. Pass calibration, a folder of other images."
        raise ValueError(msg)


def _identities(plain: Iterable[Any]) -> list[Identity]:
    """What images are known by, of what a calibration keeps of them."""
    return from_plain(cast("Iterable[PlainIdentity]", plain))


def _each_once(
    measured: Measured, what: str
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[dict[str, Any], ...]]:
    """Scores, peaks and plain identities of images, copies once.

    Raises:
        ValueError: If a score is no number.
    """
    rows = distinct(measured.identities)
    kept = [measured.identities[row] for row in rows]
    score, peak = measured.score[rows], measured.peak[rows]
    bad = [one.name for one, value in zip(kept, score + peak, strict=True) if not np.isfinite(value)]
    if bad:
        msg = f"The scores of the {what} {', '.join(bad)} are no numbers. Replace or remove them."
        raise ValueError(msg)
    return score, peak, tuple(dict(one) for one in to_plain(kept))


def peaks_of(shown: Sequence[Shown], maps: NDArray[np.float32], look: Look | None) -> list[float]:
    """Maxima of the maps (n, h, w) of n images, where they are looked at."""
    pairs = zip(shown, maps, strict=True)
    return [float((one_map if look is None else look(one_map, one.size)).max()) for one, one_map in pairs]


def batches(shown: Iterable[Shown]) -> Iterable[list[Shown]]:
    """Some images at a time."""
    batch: list[Shown] = []
    for one in shown:
        batch.append(one)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def numbers(scored: Scored) -> Scored:
    """Scores that are numbers.

    Raises:
        ValueError: If one is not: something the model is made of is damaged.
    """
    if np.isfinite(scored.score).all() and np.isfinite(scored.anomaly_map).all():
        return scored
    msg = (
        "The model's scores are no numbers (NaN or infinite), so nothing can be said of the image. Its weights, text "
        "features or references are damaged: build it anew."
    )
    raise ValueError(msg)
