"""A model in torch: scores, and the one place that knows what depends on what."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from anomalib_clipad.images.alike import distinct
from anomalib_clipad.images.picture import Picture
from anomalib_clipad.settings import Settings
from anomalib_clipad.text.prompts import load_prompts
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.verdicts.conformal import standing_apart
from anomalib_clipad.verdicts.normal_scores import Limits, NormalScores
from anomalib_clipad.vision.detector import Described, Joined, Prediction, Seen, together
from anomalib_clipad.vision.joining import LEAST
from anomalib_clipad.vision.pool import Pool, joined, key_of
from anomalib_clipad.vision.surgery import ScoreScale, calibrate_reference_map
from anomalib_clipad.vision.tile_grid import TileGrid

from .base import BATCH, Look, Measured, Predictor, Prepared, Scored, Shown, batches, numbers, peaks_of
from .coreset import coreset
from .decision import Decision, unfitted
from .frame import WHOLE
from .products import Product, load_product
from .taught import Taught

DROPPED = "Dropped, since it does not hold"
"""How the warning begins that something was let go of."""


class Processor(Protocol):
    """What turns raw outputs into scores: anomalib's post-processor of a model, or one that nothing was fitted to.

    Attributes:
        decision: What it makes of raw outputs now.
        normal: Raw scores of normal images, if it is calibrated.
    """

    normal: NormalScores | None

    @property
    def decision(self) -> Decision:
        """See the class."""

    def normal_scores(self) -> NormalScores | None:
        """The same on the scale of its outputs."""

    def forget(self) -> list[str]:
        """Let go of what was fitted to other scores; what that was, in words."""

    def serve(self, scale: ScoreScale) -> None:
        """Learn the scale of the raw outputs."""


class Plain:
    """A processor that nothing was fitted to: scores are probabilities, 0.5 lies between good and defective."""

    def __init__(self) -> None:
        self.normal: NormalScores | None = None
        self.decision = unfitted()

    def normal_scores(self) -> NormalScores | None:
        """Scores of normal images on the scale of its outputs."""
        return None if self.normal is None else self.decision.scaled(self.normal)

    def forget(self) -> list[str]:
        """Let go of the calibration."""
        had, self.normal = self.normal, None
        known = ["known defects"] if had is not None and had.defects is not None else []
        return [] if had is None else ["calibration", *known]

    def serve(self, scale: ScoreScale) -> None:
        """Take over the scale."""
        self.decision.scale = scale


class LivePredictor(Predictor):
    """A ``ClipADModel`` with its pre- and post-processing, that remembers what its tower made of the last image.

    Scores depend on the text (class name, prompts, share) and on what images are compared with. Statistics and
    calibration were fitted to scores. So whatever changes the former lets go of the latter, here and nowhere else.

    Args:
        model: The model.
        transform: From images (3, H, W) in [0, 1] to what it takes.
        processor: From its raw outputs to scores.
        complete: The same model with its text tower, where this one was started without.
        frame: Of ``Predictor``.

    Attributes:
        passes: How many batches went through the tower.
    """

    def __init__(
        self,
        model: ClipADModel,
        transform: Callable[[Tensor], Tensor],
        processor: Processor | None = None,
        complete: Callable[[], ClipADModel] | None = None,
        frame: str = WHOLE,
    ) -> None:
        self.model, self.transform, self._complete, self.frame = model, transform, complete, frame
        self.processor: Processor = processor or Plain()
        self.passes = 0
        self._seen: Seen | None = None
        self._left_out: Tensor | None = None
        self._shown: list[Shown] = []
        self.serve()

    # What it is made of

    @property
    def class_name(self) -> str | None:  # type: ignore[override]  # the model knows
        """What it looks for defects of."""
        return self.model.class_name

    @property
    def precision(self) -> str:  # type: ignore[override]  # the model knows
        """Number format of the image tower."""
        return self.model.settings.precision

    @property
    def grid(self) -> TileGrid | None:
        """Its tiles, if it has any."""
        return self.model.detector.tiles

    @property
    def aspect(self) -> float:
        """Width over height of the references; 0 if that is not known."""
        memory = self.model.detector.memory
        return 0.0 if memory is None else float(memory.aspect)

    @property
    def scale(self) -> ScoreScale:
        """How its raw outputs become probabilities."""
        return self.model.detector.scale if self.model.pool is None else self.model.pool.scale

    @property
    def own_limits(self) -> Limits | None:
        """By its thresholds."""
        return self.processor.decision.limits()

    @property
    def fitted(self) -> bool:  # type: ignore[override]  # its statistics know
        """Whether its thresholds were fitted to images."""
        return self.processor.decision.fitted

    @property
    def normalized(self) -> bool:
        """Whether scores lie in [0, 1]."""
        return self.processor.decision.normalize

    @property
    def normal(self) -> NormalScores | None:
        """Scores of normal images, on the scale of its outputs."""
        return self.processor.normal_scores()

    @property
    def raw_normal(self) -> NormalScores | None:
        """The same before its statistics."""
        return self.processor.normal

    def keep_normal(self, normal: NormalScores | None) -> None:
        """Take over raw scores of normal images."""
        self.processor.normal = normal

    def serve(self) -> None:
        """Tell the processor the scale of the outputs of now."""
        self.processor.serve(self.scale)

    def changed(self, what: str) -> None:
        """Let go of all that was fitted to other scores, and say so."""
        self.version += 1
        self.serve()
        dropped = self.processor.forget()
        if dropped:
            msg = f"{DROPPED} for {what}: {', '.join(dropped)} of before."
            warnings.warn(msg, stacklevel=3)

    # Text

    def look_for(
        self,
        class_name: str | None = None,
        prompts: Any = None,
        text_weight: float | None = None,
        anew: bool = False,
    ) -> None:
        """Take another class, other prompts or another share of the text; where one is refused, nothing changes.

        Args:
            class_name: Another class.
            prompts: Other prompts, as of ``ClipAD``.
            text_weight: Another share.
            anew: Whether references are about to follow, which take the place of those of now.

        Raises:
            ValueError: If one is not valid, the text gets a share and there is no class name, or references are joined
                by spread and their images are not at hand.
        """
        before, before_name = self.model.settings, self.class_name
        settings = before if prompts is None else replace(before, prompts=load_prompts(prompts))
        settings = settings if text_weight is None else replace(settings, text_weight=text_weight)
        name = class_name or self.class_name
        reworded = name != self.class_name or settings.prompts != before.prompts
        if settings == before and not reworded:
            return
        if settings.uses_text and name is None:
            msg = "Say what the images show, as in class_name='hazelnut'; only with text_weight 0 is no name needed."
            raise ValueError(msg)
        measures = not anew and self._has_to_measure(settings, reworded)
        if measures and not self._shown:
            msg = (
                "The references are joined with the text by the spread of what it says of them, and their images are "
                "not at hand for other words. Pass the images again, or joining='sum'."
            )
            raise ValueError(msg)
        if settings.uses_text and reworded:
            model = self.model if self._complete is None else self._complete()
            model.setup(str(name), settings)
            model.detector.memory = self.model.detector.memory
            self.model, self._complete = model, None
        else:
            self.model.configure(settings)
            if reworded:
                self.model.class_name = None  # its text features are of another one
        if measures:
            groups = ([one.prepared for one in batch] for batch in batches(self._shown))
            peaks = [self._describe(group).text_peaks for group in groups]
            memory = self.model.detector.memory
            assert memory is not None, "references were compared with before"
            memory.learn_text(torch.cat(cast("list[Tensor]", peaks)))
        self.changed(f"the class '{self.class_name}'" if name != before_name else "other words")

    def _has_to_measure(self, settings: Settings, reworded: bool) -> bool:
        """Whether the text's spread among the references is needed, and not known."""
        memory = self.model.detector.memory
        if memory is None or len(self.references) < LEAST or settings.joining == "sum" or not settings.uses_text:
            return False
        return reworded or not memory.knows_spreads

    # References

    def fit(self, shown: Iterable[Shown], memory_size: int | None = None) -> None:
        """See ``Predictor.fit``."""
        described, whose = list[Described](), list[Shown]()
        for batch in batches(shown):
            described.append(self.describe([one.prepared for one in batch]))
            whose += batch
        if not whose:
            msg = "There are no references: no image was given to compare with."
            raise ValueError(msg)
        self.keep(together(described), whose, whose[0].prepared, memory_size)

    def describe(self, images: Sequence[Prepared]) -> Described:
        """What a memory needs of normal images, on the CPU."""
        return Described(*(None if one is None else one.cpu() for one in self._describe(images)))  # type: ignore[arg-type]

    def _describe(self, images: Sequence[Prepared]) -> Described:
        self.passes += 1
        batch = self._joined(images)
        self.model.detector.memory, kept = None, self.model.detector.memory
        try:
            self.model.detector.check(batch)
        finally:
            self.model.detector.memory = kept
        text = self.model.text_features if self.model.settings.uses_text and self.class_name is not None else None
        return self.model.detector.describe(batch, text)

    def keep(
        self, described: Described, shown: Sequence[Shown], image: Prepared, memory_size: int | None = None
    ) -> None:
        """Compare with what was described, here or elsewhere; ``image`` is one of the images.

        For other words the images are described anew: they are kept, where they are at hand.
        """
        grid = self.grid
        aspects = [one.size[1] / one.size[0] for one in shown]
        if grid is not None:
            for one in shown:
                grid.check_places(*one.size, aspects[0])
        identities = [one.identity for one in shown]
        rows = distinct(identities)
        choose = None if memory_size is None else (lambda memory: coreset(memory, memory_size))
        detector = self.model.detector
        peaks = None if described.text_peaks is None else described.text_peaks[rows]
        kept = Described(described.tokens[:, rows].to(self.model.device), peaks)
        self._left_out = detector.keep(kept, self._joined([image]), choose)
        assert detector.memory is not None
        detector.memory.aspect.fill_(aspects[0])
        at_hand = all(one.prepared.size for one in shown)
        self._shown = [shown[row] for row in rows] if at_hand else []
        self.references, self.taught = tuple(identities[row] for row in rows), None
        self.changed("other references")
        if self._left_out is not None:
            self._compare_references(detector.peaks(self._left_out, image.shape[-2:]))

    # Measured with clipad-mini on sets of 10, 20 and 30 of 50 pictures of each of seven categories of generated parts,
    # and of 30 photographs of hazelnuts: a defective image among 9, 19 and 29 good ones is named in 66, 68 and 68 % of
    # all sets (of hazelnuts in 42, 28 and 12 %). Of sets of good images alone 2, 0.2 and 0 % of hazelnuts and of five
    # categories are said to have one that differs; of the other two 22, 36 and 60 %, which is one odd picture in each.
    def _compare_references(self, peaks: Tensor) -> None:
        """Warn where references differ so much from the others (k,) that they may show defects."""
        apart = standing_apart(calibrate_reference_map(peaks, peaks.max()).cpu().numpy())
        if apart:
            msg = (
                f"The references {', '.join(self.references[place].name for place in apart)} differ much more from the "
                "others than these among themselves. If they show defects, remove them: they hide defects."
            )
            warnings.warn(msg, stacklevel=3)

    def fit_product(self, file: Product) -> None:
        """Compare with the references of a product file, and look for its class.

        Raises:
            ValueError: If the file is damaged, or is of another model, class or settings.
        """
        product = load_product(file, self.model)
        self.model.detector.memory = product.memory.to(self.model.device)
        if product.text_features is not None:
            self.model.text_features.copy_(product.text_features)
            self.model.class_name = product.class_name
        self.references, self._left_out, self._shown = product.references, None, []
        self.taught = product.taught
        self.changed("a product file")

    def forget_references(self) -> None:
        """Compare with no images any more."""
        if self.model.detector.memory is not None:
            self.model.detector.memory, self.references, self._left_out, self._shown = None, (), None, []
            self.taught = None
            self.changed("no references")

    def gather(self, groups: Iterable[Sequence[Prepared]]) -> None:
        """Let these images judge each other, and those that follow, from now on; copies count once.

        Raises:
            ValueError: If there are fewer than two different ones.
        """
        evidence, keys = [], []
        for group in groups:
            images = self._joined(group)
            evidence.append(self.model.examine(images))
            keys += [key_of(image) for image in images]
        self.passes += len(evidence)
        self.judge_by(Pool(self.model.detector, joined(evidence), keys))

    def judge_by(self, pool: Pool | None) -> None:
        """Compare images with those of a pool from now on, or with none; each run of the engine has its own."""
        self.model.pool = pool
        self.version += 1
        self.serve()

    @property
    def _thinned(self) -> bool:
        """Whether the memory holds only some of the references' patches, also that of a checkpoint or product file."""
        detector = self.model.detector
        patches = len(self.references) * detector.reference_matrix.shape[1] ** 2
        return detector.memory is not None and detector.memory.tokens.shape[-2] < patches

    @torch.no_grad()
    def calibrate_left_out(self, shown: Sequence[Shown], rate: float | None, look: Look | None = None) -> None:
        """See ``Predictor.calibrate_left_out``."""
        if self.taught is not None:
            msg = (
                f"{self.taught}, and such images do not calibrate: each was picked since it looked suspicious. Pass a "
                "folder of other normal images as calibration (calibration_source of ClipAD)."
            )
            raise ValueError(msg)
        references = [one.digest for one in self.references]
        by_digest = {one.identity.digest: one for one in shown}
        if self._thinned or len(references) < 2 or set(references) != set(by_digest):
            why = f"it takes two or more different ones and their images, and there are {len(references)}"
            if self._thinned:
                why = "with memory_size new images are compared with some of their patches only"
            msg = (
                f"References are calibrated on by leaving out one of them at a time, but {why}. Pass a folder of other "
                "normal images as calibration (calibration_source of ClipAD)."
            )
            raise ValueError(msg)
        kept = [by_digest[digest] for digest in references]
        raw = self._arrays(self._leave_one_out(kept))
        peaks = np.array(peaks_of(kept, raw.anomaly_map, look), np.float32)
        self.certify(Measured(raw.score, peaks, self.references), rate, left_out=True)

    def _leave_one_out(self, kept: Sequence[Shown]) -> Prediction:
        """What it makes of all references, each compared with the others."""
        self.passes += -(-len(kept) // BATCH)
        text = self.model.text_features if self.model.settings.uses_text else None
        groups = (self._joined([one.prepared for one in batch]) for batch in batches(kept))
        return self.model.detector.leave_one_out(groups, text, self._left_out)

    # Teaching

    def teach(self, good: Sequence[Shown], references: Sequence[Shown] = (), rest: Iterable[str] = ()) -> None:
        """Let good images join the references, as whole images, in an order of their own; copies count once.

        Scale and spreads of a memory are measured on its images, so all of them have to be at hand; then the model is
        the one that was given all of these references at once.

        Args:
            good: Images that a person has called good.
            references: The references of now, where their images are not at hand, as those of a checkpoint.
            rest: Digests of the other images of the list that they were ticked from.

        Raises:
            ValueError: As of ``lesson``. Then nothing changes.
        """
        joining, size = self.lesson(good, references), self._size_of_memory
        listed = {*rest, *(() if self.taught is None else self.taught.rest)}
        before = {one.digest for one in self.references} - set(() if self.taught is None else self.taught.digests)
        taught = tuple(one.identity.digest for one in joining if one.identity.digest not in before)
        self.fit(joining, size)
        day = datetime.now(timezone.utc).date().isoformat()
        self.taught = Taught(taught, tuple(sorted(listed - set(taught))), day)

    @property
    def _size_of_memory(self) -> int | None:
        """Patches a stage that are kept of the references; ``None`` for all."""
        memory = self.model.detector.memory
        return int(memory.tokens.shape[-2]) if memory is not None and self._thinned else None

    def lesson(self, good: Sequence[Shown], references: Sequence[Shown] = ()) -> list[Shown]:
        """All references of a model that has been taught: those of before, then what it was taught by digests.

        Args:
            good: As of ``teach``.
            references: Likewise.

        Raises:
            ValueError: If there is nothing to learn, images judge each other, or a reference is not at hand.
        """
        if self.model.pool is not None:
            msg = "Images that judge each other have no references that others could join. Leave out mutual."
            raise ValueError(msg)
        own = [one.digest for one in self.references]
        for one in references:
            if one.identity.digest not in own:
                msg = (
                    f"{one.identity.name} is none of the {len(own)} references of the model. To teach a model, pass "
                    "the references it has."
                )
                raise ValueError(msg)
        by_digest = {one.identity.digest: one for one in (*good, *references, *self._shown)}
        lacking = [one.name for one in self.references if one.digest not in by_digest]
        if lacking or (self.model.detector.memory is not None and not own):
            such = f", such as {lacking[0]}" if lacking else ""
            msg = (
                "A memory holds no images, and its scale is measured on them: pass the references again. Not at hand: "
                f"{len(lacking) or 'all'} of them{such}."
            )
            raise ValueError(msg)
        before = set() if self.taught is None else set(self.taught.digests)
        new = {one.identity.digest for one in good} - set(own)
        if not new:
            msg = "There is nothing to learn: no image is ticked as good that is not a reference already."
            raise ValueError(msg)
        return [by_digest[digest] for digest in [*(one for one in own if one not in before), *sorted(before | new)]]

    @torch.no_grad()
    def taught_left_out(self, look: Look | None = None) -> dict[str, tuple[float, float]]:
        """Scores and map maxima of what it was taught, each image compared with all other references, by digest.

        Nothing where that cannot be told: the images are not at hand, the memory is thinned, or there is one alone.
        """
        if self.taught is None or self._thinned or len(self._shown) < 2:
            return {}
        found = self._scored(self._leave_one_out(self._shown))
        peaks = peaks_of(self._shown, found.anomaly_map, look)
        digests = set(self.taught.digests)
        return {
            one.identity.digest: (float(score), peak)
            for one, score, peak in zip(self._shown, found.score, peaks, strict=True)
            if one.identity.digest in digests
        }

    # Scores

    def _prepare(self, picture: Picture) -> Prepared:
        """The image as the tower sees it."""
        prepared: Tensor = self.transform(torch.from_numpy(picture.levels))
        return prepared.cpu().numpy()

    def score(self, images: Sequence[Prepared]) -> Scored:
        """Score prepared images, and forget what was seen before."""
        self._seen = None
        return self._scored(self._predicted(images))

    def _raw(self, images: Sequence[Prepared]) -> Scored:
        return self._arrays(self._predicted(images))

    def score_and_keep(self, image: Prepared) -> Scored:
        """Score one prepared image; ``rescore`` may follow, unless images judge each other."""
        if self.model.pool is not None:
            return self.score([image])
        self.passes += 1
        self._seen = self.model.observe(self._joined([image]))
        return self.rescore()

    def rescore(self) -> Scored:
        """Score the last image anew, with the text and the references of now, without the tower.

        Raises:
            RuntimeError: If there is none.
        """
        if self._seen is None:
            msg = "There is no image to look at again: inspect one first, on its own."
            raise RuntimeError(msg)
        return self._scored(self.model.conclude(self._seen))

    def pre_process(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] as the tower sees them."""
        return self.transform(images)

    def to(self, device: str) -> LivePredictor:
        """Compute elsewhere from now on, such as on ``cuda``."""
        self.model.to(device)
        self._seen = None
        return self

    def _predicted(self, images: Sequence[Prepared]) -> Prediction:
        self.passes += 1
        return self.model.predict(self._joined(images))

    def _scored(self, raw: Prediction) -> Scored:
        found = numbers(self._arrays(self.processor.decision(raw)))
        if not isinstance(raw, Joined):
            return found
        text, images = (scores.float().cpu().numpy() for scores in raw.alone())
        return found._replace(text=text, references=images)

    @staticmethod
    def _arrays(found: Prediction) -> Scored:
        assert found.anomaly_map is not None
        return Scored(found.pred_score.float().cpu().numpy(), found.anomaly_map.float().cpu().numpy())

    def _joined(self, images: Sequence[Prepared]) -> Tensor:
        return torch.from_numpy(np.stack(images)).to(self.model.device)
