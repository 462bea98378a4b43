"""What a run needs before it begins: text, references, calibration, other images; in this order, each once."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from anomalib_clipad.images.alike import from_plain, identify, to_plain
from anomalib_clipad.images.picture import UnreadableError, read
from anomalib_clipad.predictor.base import Shown
from anomalib_clipad.predictor.live import DROPPED, LivePredictor
from anomalib_clipad.predictor.products import read_product
from anomalib_clipad.predictor.taught import Taught
from anomalib_clipad.verdicts.normal_scores import NormalScores

from .calibration import CalibrationSource, DefectSource, calibration_files
from .post_processor import ClipADPostProcessor
from .references import References, fill_pool, reference_images

if TYPE_CHECKING:
    from anomalib_clipad.vision.memory import Memory

logger = logging.getLogger(__name__)
_CHECKPOINT = "checkpoint"


class Preparation:
    """Makes a predictor ready for a run of the engine: passes on how images arrive, and keeps where they came from.

    Args:
        predictor: The model's.
        references: What images are compared with, besides the text.
        source: Where calibration images come from.
        known: Where known defects come from.

    Attributes:
        files: The calibration images, once they are scored; none if they are the references.
        defects: The known defects, likewise.
    """

    def __init__(
        self,
        predictor: LivePredictor,
        references: References,
        source: CalibrationSource,
        known: DefectSource = DefectSource(),  # noqa: B008  # it is frozen
    ) -> None:
        self.predictor, self.references, self.source, self.known = predictor, references, source, known
        self.files: list[str] = []
        self.defects: list[str] = []
        self._origin: Hashable = None  # where the references came from
        self._split: Hashable = None  # the datamodule whose images calibrate, unless they came from a folder or file
        self._seen: dict[str, str] = {}

    # In this order

    def encode(self, name: str, origin: str, validating: bool) -> None:
        """Look for a class, unless that is done already or was restored from a checkpoint.

        Args:
            name: The class name.
            origin: Where it comes from, in words; ``default`` if nobody gave one.
            validating: Whether statistics are about to be fitted anew.
        """
        known = self.predictor.class_name
        if not self.predictor.model.settings.uses_text or name == known or (origin == "default" and known):
            return
        if origin == "default" and self.references.product is not None:
            return  # the file knows
        logger.info("Class name: '%s' (%s).", name, origin)
        if origin == "default":
            logger.warning(
                "No class name is given and the data has no category. Naming the object in the images, as in "
                "class_name='hazelnut', helps the model."
            )
        with _logged(validating):
            self.predictor.look_for(name, anew=self._takes_references_anew())

    def _takes_references_anew(self) -> bool:
        """Whether the references of a checkpoint, whose images it does not hold, are at hand for other words."""
        source, joining = self.references, self.predictor.model.detector.joining
        again = self._origin == _CHECKPOINT and bool(joining.by_peak) and source.few_shot and source.product is None
        if again:
            self._origin = None
        return again

    def remember(self, data: Any, validating: bool = False) -> None:
        """Compare with the references from now on, unless that is done or a checkpoint brought them.

        Args:
            data: The datamodule of the run, if any.
            validating: As of ``encode``.

        Raises:
            ValueError: If there are too few images, there is no source of them, or they do not fit.
            FileNotFoundError: If their folder does not exist or holds no image.
        """
        if not self.references.few_shot:
            return
        origin = self.references.source or split_of(data)
        if self._origin in {origin, _CHECKPOINT} or (data is None and self._origin is not None):
            return
        with _logged(validating):
            if self.references.product is not None:
                self.predictor.fit_product(read_product(self.references.product))
            else:
                names, shown = self._references(data)
                logger.info("References: %d normal images: %s.", len(names), ", ".join(names))
                self.predictor.fit(shown, self.references.memory_size)
        self._origin = origin
        detector = self.predictor.model.detector
        memory, text = cast("Memory", detector.memory), ""
        if detector.joining.by_peak and detector.uses_text:
            text = ", beside the largest value that the text gives one"
        elif detector.uses_text:
            text = " (the text has its own 0.5)"
        logger.info(
            "Without validation data, 0.5 is the distance %.3f, the largest of a normal image to %s%s.",
            float(memory.farthest),
            "the others" if len(self.predictor.references) > 1 else "its mirror images",
            text,
        )

    def certify(self, data: Any) -> None:
        """Score the calibration images, and the known defects, if there is a rate and that is not done yet.

        Raises:
            ValueError: If there are none, too few for the rate, defective or reference images among them, or a score is
                no number.
            FileNotFoundError: If the folder holds no image.
        """
        processor: Any = self.predictor.processor
        if not isinstance(processor, ClipADPostProcessor) or processor.false_alarm_rate is None:
            if self.known.rate is not None:
                msg = "miss_rate is the second of two rates; pass false_alarm_rate too, such as 0.05."
                raise ValueError(msg)
            return
        split, rate = split_of(data), processor.false_alarm_rate
        changed = self._split not in {None, split} and data is not None
        if processor.normal is None or changed:
            self._split = None if self.source.folder else split
            files, origin = calibration_files(self.source, self.references, data)
            with _logged(False):
                if files is None:
                    self.predictor.calibrate_left_out(list(self._references(data)[1]), rate)
                else:
                    self.predictor.calibrate((self.predictor.show(read(file), file) for file in files), rate)
            assert processor.normal is not None
            self.files = [] if files is None else [one["name"] for one in processor.normal.identities]
            self._certify_defects(processor)
            logger.warning("%s: %s", origin, processor.normal.promise(rate))  # the command line hides infos
        else:
            self._certify_defects(processor)
        replace(processor.normal, rate=rate).limits()

    def _certify_defects(self, processor: Any) -> None:
        """Score the known defects, unless that is done; of a checkpoint they may be at another rate.

        Raises:
            ValueError: If there are none for a miss rate, or they do not count.
        """
        defects, rate = processor.normal.defects, self.known.rate
        if defects is None and self.known.path is not None:
            with _logged(False):
                shown = (self.predictor.show(read(file), file) for file in self.known.files())
                self.predictor.certify_defects(self.predictor.measure(shown), rate)
            self.defects = [one["name"] for one in processor.normal.defects.identities]
        elif defects is None and rate is not None:
            msg = "miss_rate takes known defects: pass defect_source, a folder of them or the ticks of an audit."
            raise ValueError(msg)
        elif defects is not None and rate not in {None, defects.rate}:
            self.predictor.keep_normal(replace(processor.normal, defects=replace(defects, rate=rate)))

    def gather(self, loader: Any, rank: int, world: int) -> None:
        """Let the images of a loader judge each other, if they are to.

        Args:
            loader: The loader of the run.
            rank: Number of this process.
            world: Number of processes.

        Raises:
            ValueError: If there is only one image.
        """
        self.finish()
        if self.references.mutual:
            fill_pool(self.predictor, loader, self.references.pool, rank, world)
            logger.info("Without validation data, 0.5 is three spreads above the median of these images' map maxima.")

    # During a run

    def notice(self, files: Iterable[str], calibrated: bool = True) -> None:
        """Look for references, and if wanted for calibration images, among the scored files."""
        known = self.predictor.known(calibrated)
        if known is None:
            return
        for file in files:
            try:
                found = known.find(identify(read(file), file))
            except UnreadableError:  # the data set has its images from elsewhere
                continue
            if found is not None:
                self._seen[file] = found.name

    def finish(self) -> None:
        """End a run: say which images the model knew, and let go of the pool."""
        if self._seen:
            pairs = ", ".join(f"{file} is, or looks like, {name}" for file, name in list(self._seen.items())[:5])
            logger.warning(
                "%d of the scored images are references or calibration images too, or known defects, and nothing can "
                "be said about them: %s.",
                len(self._seen),
                pairs,
            )
        self._seen = {}
        if self.predictor.model.pool is not None:
            self.predictor.judge_by(None)

    # Checkpoints

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        normal = self.predictor.processor.normal
        return {
            "references": {"mutual": self.references.mutual, "pool": self.references.pool},
            "reference_identities": to_plain(self.predictor.references),
            "taught": None if self.predictor.taught is None else self.predictor.taught.to_plain(),
            "normal": None if normal is None else normal.to_json(),
            "calibration": [str(Path(file).absolute()) for file in self.files],
            "defects": [str(Path(file).absolute()) for file in self.defects],
        }

    def restore(self, state: dict[str, Any], old: dict[str, Any]) -> None:
        """Take over what a checkpoint was made with.

        Args:
            state: Of ``state``; of version 0.2 without identities.
            old: Scores of calibration images, ``score`` and ``peak``, where version 0.2 kept them.

        Raises:
            ValueError: If it is calibrated on scores of another number format.
        """
        self.references = replace(self.references, **state["references"])
        self.predictor.references = tuple(from_plain(state.get("reference_identities", ())))
        self.predictor.taught = Taught.from_plain(state.get("taught"))
        remembers = self.predictor.model.detector.memory is not None and not self._others_given()
        self._origin = _CHECKPOINT if remembers else None
        self.predictor.serve()
        if self.source.given:  # other images than those of the checkpoint
            kept = state.get("normal")
            if self.known.path is None and kept is not None and NormalScores.from_json(kept).defects is not None:
                msg = (
                    "The known defects of the checkpoint go with its calibration images. Pass defect_source with "
                    "calibration_source, or neither."
                )
                raise ValueError(msg)
            return
        calibration, normal = state.get("calibration", ()), None
        if state.get("normal") is not None:
            normal = NormalScores.from_json(state["normal"])
        elif old:
            left_out, calibration = bool(calibration["left_out"]), calibration["files"]
            normal = NormalScores(old["score"].numpy(), old["peak"].numpy(), left_out=left_out)
        elif isinstance(calibration, dict):
            calibration = ()
        if normal is not None and normal.computed_in != self.predictor.precision:
            msg = (
                f"The checkpoint is calibrated on scores computed in {normal.computed_in}, and this model computes in "
                f"{self.predictor.precision}: its false-alarm rate would not hold. Construct it with "
                f"precision='{normal.computed_in}', or pass calibration_source to calibrate it anew."
            )
            raise ValueError(msg)
        if normal is not None and self.known.path is not None:  # other ones than those of the checkpoint
            normal = replace(normal, defects=None)
        self.predictor.keep_normal(normal)
        self.files = list(calibration)
        self.defects = [] if normal is None or normal.defects is None else list(state.get("defects", ()))

    def _others_given(self) -> bool:
        """Whether a source was given whose images are not those of the checkpoint."""
        if self.references.source is None:
            return False
        if self.references.product is not None:
            given = read_product(self.references.product).references
        else:
            given = tuple(
                identify(image, name) for name, image in zip(*reference_images(self.references, None), strict=True)
            )
        return {one.digest for one in given} != {one.digest for one in self.predictor.references}

    def forget_references(self) -> None:
        """Let go of the references, to take them anew for other tiles.

        Raises:
            ValueError: If a checkpoint brought them.
        """
        if self._origin == _CHECKPOINT:
            msg = "The memory of the checkpoint was filled with other tiles. Fit the model anew with these."
            raise ValueError(msg)
        self._origin = None
        self.predictor.forget_references()

    def calibration_images(self) -> list[str] | None:
        """The files of the calibration images, if all are still there and can be run through an exported file."""
        return _at_hand(self.files)

    def known_defects(self) -> list[str] | None:
        """The files of the known defects, likewise."""
        return _at_hand(self.defects)

    def _references(self, data: Any) -> tuple[list[str], Iterator[Shown]]:
        names, images = reference_images(self.references, data)
        shown = (self.predictor.show(image, name, reference=True) for name, image in zip(names, images, strict=True))
        return names, shown


def _at_hand(files: list[str]) -> list[str] | None:
    """Files, if there are any and all are still there."""
    return files if files and all(Path(file).is_file() for file in files) else None


def split_of(data: Any) -> Hashable:
    """What tells the images of one datamodule from another's."""
    return type(data), str(getattr(data, "root", "")), str(getattr(data, "category", ""))


@contextmanager
def _logged(unsaid: bool) -> Iterator[None]:
    """Log what is warned of, as the engine's users read logs; but not that statistics go which are fitted anew."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        yield
    for one in said:
        if one.category is not UserWarning:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        elif not (unsaid and str(one.message).startswith(DROPPED)):
            logger.warning("%s", one.message)
