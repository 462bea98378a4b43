"""Normal images that give a false-alarm rate its meaning: where they come from, and their scores."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from anomalib.data import AnomalibDataModule, PredictDataset
from torch import Tensor

from anomalib_clipad.data.reading import read_image
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.verdicts.conformal import (
    check_rate,
    images_needed,
    promise,
    smallest_rate,
    standing_apart,
)
from anomalib_clipad.vision.detector import LEFT_OUT
from anomalib_clipad.vision.pool import key_of

from .comparer import Comparer
from .familiar import Familiar, split_of
from .post_processor import ClipADPostProcessor, NormalScores
from .references import Transform, normal_images

logger = logging.getLogger(__name__)
_BATCH = 8
VALIDATION, REFERENCES = "validation", "references"


@dataclass(frozen=True)
class CalibrationSource:
    """Where calibration images come from.

    Args:
        folder: Folder of normal images, or a single one.
        split: ``validation``, the datamodule's validation split, or ``references``, the normal images that others are
            compared with, each left out in turn. ``None``, without a folder, for the first that is there.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """

    folder: Path | None = None
    split: str | None = None

    @classmethod
    def of(cls, source: str | Path | None) -> CalibrationSource:
        """The source that a user names."""
        if source is None or source in {VALIDATION, REFERENCES}:
            return cls(split=cast("str | None", source))
        return cls(folder=Path(source).expanduser())

    def __post_init__(self) -> None:
        if self.folder is not None and not self.folder.exists():
            msg = (
                f"There is no folder '{self.folder}' to take calibration images from. Give a folder of normal images, "
                f"'{VALIDATION}' or '{REFERENCES}'."
            )
            raise FileNotFoundError(msg)

    @property
    def given(self) -> bool:
        """Whether a user named one."""
        return self.folder is not None or self.split is not None


def check_guarantee(rate: float | None, source: str | Path | None, mutual: bool) -> CalibrationSource:
    """Check a false-alarm rate and where its images come from, before anything is loaded.

    Raises:
        ValueError: If the rate is no share, the source has no rate, or the scores depend on the run.
        FileNotFoundError: If the folder does not exist.
    """
    if rate is None:
        if source is not None:
            msg = "calibration_source calibrates a false-alarm rate; pass false_alarm_rate too, such as 0.05."
            raise ValueError(msg)
        return CalibrationSource()
    check_rate(rate)
    if mutual:
        msg = (
            "With mutual the scores of an image depend on the other images of its run, so scores of calibration images "
            "say nothing about them. Use k_shot or few_shot_source with false_alarm_rate."
        )
        raise ValueError(msg)
    return CalibrationSource.of(source)


class Calibrator:
    """Takes the scores of the calibration images, once, and keeps where they came from.

    Args:
        model: The model that scores them.
        comparer: What it compares images with.
        source: Where the images come from.

    Attributes:
        files: The images.
        left_out: Whether they are references, each judged by the others.
    """

    def __init__(self, model: ClipADModel, comparer: Comparer, source: CalibrationSource) -> None:
        self.model, self.comparer, self.source = model, comparer, source
        self.files: list[str] = []
        self.left_out = False
        self._keys: list[str] = []
        self._familiar = Familiar(
            "%d of the scored images are calibration images too: their p-values say nothing about new images."
        )
        self._split: Hashable = None  # the datamodule whose images were scored, unless they came from a folder or file

    def certify(self, post_processor: Any, data: Any, transform: Transform) -> None:
        """Give a post-processor the scores of the calibration images, if it has a rate and no scores yet.

        Args:
            post_processor: The model's.
            data: The datamodule of the run, if any.
            transform: Pre-processing.

        Raises:
            ValueError: If there are none, too few for the rate, defective or reference images among them, or a score is
                no number.
            FileNotFoundError: If the folder holds no image.
        """
        if not isinstance(post_processor, ClipADPostProcessor) or post_processor.false_alarm_rate is None:
            return
        check_rate(post_processor.false_alarm_rate)
        split = split_of(data)
        changed = self._split not in {None, split} and isinstance(data, AnomalibDataModule)
        if post_processor.normal is None or changed:
            self._split = None if self.source.folder else split
            self.files, self.left_out, origin = self._find(data)
            _check_count(len(self.files), post_processor.false_alarm_rate, origin)
            post_processor.normal = self._measure(transform)
            self._say(post_processor, origin)
        _check_count(len(post_processor.normal.score), post_processor.false_alarm_rate, "The calibration")

    def _find(self, data: Any) -> tuple[list[str], bool, str]:
        """Files, whether they are references, and where they come from in words."""
        if self.source.folder is not None:
            files = [str(path) for path in PredictDataset(self.source.folder).image_filenames]
            return files, False, f"The folder '{self.source.folder}'"
        if self.source.split != REFERENCES and isinstance(data, AnomalibDataModule):
            files = _validation_files(data)
            if files:
                return files, False, f"The validation split of {data.name}"
        if self.source.split != VALIDATION and self.comparer.references.few_shot:
            return *self._references(data), "The references"
        msg = (
            "false_alarm_rate takes normal images to calibrate on, and there are none. Pass calibration_source, a "
            "folder of normal images that are neither references nor scored; or a data module whose validation split "
            "holds normal images only."
        )
        raise ValueError(msg)

    def _references(self, data: Any) -> tuple[list[str], bool]:
        references = self.comparer.references
        if references.product is not None or references.memory_size is not None:
            reason = "a product file has no images" if references.product else "memory_size makes a memory of its own"
            msg = f"References are calibrated on by leaving out one of them at a time, but {reason}. "
            raise ValueError(msg + "Pass calibration_source, a folder of other normal images.")
        _, names = normal_images(references, data)
        return names[:LEFT_OUT], True

    @torch.no_grad()
    def _measure(self, transform: Transform) -> NormalScores:
        self._keys, scores, peaks = [], [], []
        batches = self._batches(transform)
        text = self.model.text_features if self.model.settings.text_weight else None
        if self.left_out:
            predictions: Iterable[Any] = [self.model.detector.leave_one_out(batches, text)]
        else:
            predictions = (self.model(batch) for batch in batches)
        for prediction in predictions:
            scores.append(prediction.pred_score)
            peaks.append(prediction.anomaly_map.amax(dim=(-2, -1)))
        if not self.left_out:
            self._check_keys()
        normal = NormalScores(torch.cat(scores), torch.cat(peaks))
        bad = [file for file, score in zip(self.files, normal.score + normal.peak, strict=True) if not score.isfinite()]
        if bad:
            msg = f"The scores of the calibration images {', '.join(bad)} are no numbers. Replace or remove them."
            raise ValueError(msg)
        return normal

    def _batches(self, transform: Transform) -> Iterator[Tensor]:
        device = self.model.device
        prepared = (transform(image[None].to(device)) for image in read_all(self.files))
        while batch := list(islice(prepared, _BATCH)):
            self._keys += [key_of(image[0]) for image in batch]
            self.model.detector.check(batch[0])
            yield torch.cat(batch)

    def _check_keys(self) -> None:
        both = [file for file, key in zip(self.files, self._keys, strict=True) if key in self.comparer.keys]
        if both:
            msg = (
                f"{len(both)} of the calibration images are references too, such as {both[0]}: their scores are too "
                f"low, and far more normal images than stated would be called defective. Calibrate on other images; or "
                f"leave out each reference in turn with calibration_source='{REFERENCES}'."
            )
            raise ValueError(msg)

    def _say(self, post_processor: ClipADPostProcessor, origin: str) -> None:
        rate = cast("float", post_processor.false_alarm_rate)
        logger.warning("%s: %s", origin, promise(len(self.files), rate, self.left_out))  # the command line hides infos
        apart = sorted({index for scores in post_processor.normal_scores() for index in standing_apart(scores.cpu())})
        if apart:
            logger.warning(
                "The scores of %s stand apart from those of the other calibration images. If they show defects, remove "
                "them: each of them hides defects of its kind.",
                ", ".join(self.files[index] for index in apart),
            )

    def notice(self, images: Iterable[Tensor]) -> None:
        """Look for calibration images among the scored ones (3, H, W)."""
        self._familiar.notice(images, self._keys)

    def finish(self) -> None:
        """End a run: say which images were compared with themselves."""
        self._familiar.finish()

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {
            "files": [str(Path(file).absolute()) for file in self.files],
            "keys": self._keys,
            "left_out": self.left_out,
        }

    def restored(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint says of its calibration images."""
        self.files, self._keys, self.left_out = state["files"], state["keys"], state["left_out"]

    def images(self) -> list[str] | None:
        """The files of the calibration images, if all are still there and can be run through a file."""
        if self.left_out or not self.files or not all(Path(file).is_file() for file in self.files):
            return None
        return self.files


def read_all(files: Sequence[str]) -> Iterator[Tensor]:
    """Images (3, H, W) in [0, 1], one by one."""
    return (cast("Tensor", read_image(file, as_tensor=True)) for file in files)


def _check_count(count: int, rate: float, origin: str) -> None:
    if count < images_needed(rate):
        msg = (
            f"{origin} has {count} normal images; a false-alarm rate of {rate} takes at least {images_needed(rate)}. "
            f"Add images, or ask for a rate of {smallest_rate(count):.4f} or more."
        )
        raise ValueError(msg)


def _validation_files(data: Any) -> list[str]:
    """Normal images of a validation split; none where there is no split."""
    if not hasattr(data, "val_data"):
        data.setup("validate")
    split = getattr(data, "val_data", None)
    samples = getattr(split, "samples", None)
    if samples is None or not len(samples):
        return []
    defective = int((samples["label_index"] == 1).sum())
    if defective:
        msg = (
            f"The validation split of {data.name} holds {defective} defective images; a false-alarm rate is calibrated "
            "on normal images alone. Pass calibration_source, a folder of normal images, or 'references'; or leave out "
            "false_alarm_rate for the threshold with the best F1 on this split."
        )
        raise ValueError(msg)
    if getattr(data, "val_augmentations", None) is not None:
        logger.warning("Calibration images are read without the augmentations of the validation split.")
    return samples["image_path"].astype(str).tolist()
