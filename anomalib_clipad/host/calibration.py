"""Where the normal images come from that give a false-alarm rate its meaning."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from anomalib.data import AnomalibDataModule

from anomalib_clipad.data.ticks import read_ticks
from anomalib_clipad.images.listing import files_in
from anomalib_clipad.verdicts.conformal import check_rate

from .references import References

logger = logging.getLogger(__name__)
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


@dataclass(frozen=True)
class DefectSource:
    """Where known defects come from, which calibrate a second rate.

    Args:
        rate: Largest share of defects that are called good.
        path: The ticks of an audit (``.csv``), a folder of defects, or a single one; ``None`` for those that a
            checkpoint brings.

    Raises:
        ValueError: If the rate is no share, or there is none for a source.
        FileNotFoundError: If there is no such file or folder.
    """

    rate: float | None = None
    path: Path | None = None

    @classmethod
    def of(cls, rate: float | None, source: str | Path | None, false_alarm_rate: float | None) -> DefectSource:
        """What a user asks for, checked before anything is loaded."""
        if source is not None and (rate is None or false_alarm_rate is None):
            msg = "defect_source calibrates the second of two rates; pass miss_rate and false_alarm_rate with it."
            raise ValueError(msg)
        return cls(rate, None if source is None else Path(source).expanduser())

    def __post_init__(self) -> None:
        if self.rate is not None:
            check_rate(self.rate, "miss_rate")
        if self.path is not None and not self.path.exists():
            msg = f"There is no '{self.path}' to take known defects from. Give a folder of them, or ticks of an audit."
            raise FileNotFoundError(msg)

    def files(self) -> list[str]:
        """The files of the known defects.

        Raises:
            ValueError: If they are ticks that do not count, or too few.
            FileNotFoundError: If there are none.
        """
        assert self.path is not None
        if self.path.suffix.lower() == ".csv":
            ticks = read_ticks(self.path)
            if self.rate is not None:
                ticks.check(self.rate)
            return list(map(str, ticks.defects))
        found = files_in(self.path) if self.path.is_dir() else [self.path]
        if not found:
            msg = f"There are no images of defects in {self.path}."
            raise FileNotFoundError(msg)
        return list(map(str, found))


def calibration_files(source: CalibrationSource, references: References, data: Any) -> tuple[list[str] | None, str]:
    """The files of the calibration images, ``None`` for the references themselves, and where they come from in words.

    Args:
        source: Where they are to come from.
        references: What images are compared with.
        data: The datamodule of the run, if any.

    Raises:
        ValueError: If there are none, or there are defective images among them.
        FileNotFoundError: If the folder holds no image.
    """
    if source.folder is not None:
        files = files_in(source.folder) if source.folder.is_dir() else [source.folder]
        if not files:
            msg = f"There are no images in {source.folder} to calibrate on."
            raise FileNotFoundError(msg)
        return list(map(str, files)), f"The folder '{source.folder}'"
    if source.split != REFERENCES and isinstance(data, AnomalibDataModule):
        found = _validation_files(data)
        if found:
            return found, f"The validation split of {data.name}"
    if source.split != VALIDATION and references.few_shot and references.product is None:
        return None, "The references"
    msg = (
        "false_alarm_rate takes normal images to calibrate on, and there are none. Pass calibration_source, a folder "
        "of normal images that are neither references nor scored; or a data module whose validation split holds normal "
        "images only."
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
