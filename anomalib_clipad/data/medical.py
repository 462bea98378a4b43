"""The medical data sets of CLIP-AD's evaluation, read from the layouts of their public releases.

They have no training images and their whole content is the test set. Head CT and brain MRI have image labels only;
in ISIC 2016 and CVC-ClinicDB every image is abnormal, so that only pixel metrics mean anything.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import pandas as pd
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import LabelName, TestSplitMode, ValSplitMode
from torchvision.transforms.v2 import Transform

from anomalib_clipad.images.listing import files_in

from .validation import ensure_validation_data


class MedicalDataset(AnomalibDataset):
    """Images with labels and, for segmentation, masks.

    Args:
        samples: Image path, label index and mask path ("" without a mask) of every image.
        task: ``"classification"`` or ``"segmentation"``.
        category: Class name.
    """

    def __init__(self, samples: pd.DataFrame, task: str, category: str) -> None:
        super().__init__()
        self.samples = samples.assign(split="test")
        self.samples.attrs["task"] = task
        self.category = category


class MedicalDataModule(AnomalibDataModule):
    """A medical data set as an anomalib data module; its category is the class name of the paper.

    Args:
        root: Folder of the unpacked release; by default ``datasets/`` and the name of the class.
        eval_batch_size: Images per batch.
        num_workers: Number of processes that read images.
        augmentations: Augmentations of the images.
        val_split_mode: How the validation set is made; the paper's protocol is that of the test set.
        val_split_ratio: Share of validation images where they are split off.
        seed: Seed of splits.

    Raises:
        FileNotFoundError: On set-up, if the layout is another one; the message shows the expected one.
    """

    class_name: ClassVar[str]
    task_type: ClassVar[str]
    layout: ClassVar[str]

    def __init__(
        self,
        root: Path | str | None = None,
        eval_batch_size: int = 32,
        num_workers: int = 8,
        augmentations: Transform | None = None,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int | None = None,
    ) -> None:
        has_normal = self.task_type == "classification"
        super().__init__(
            train_batch_size=1,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            augmentations=augmentations,
            test_split_mode=TestSplitMode.FROM_DIR if has_normal else TestSplitMode.NONE,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            seed=seed,
        )
        self.root = Path(root or f"datasets/{self.name}").expanduser()
        self.category = self.class_name

    @abstractmethod
    def rows(self) -> Iterable[tuple[Path, bool, Path | None]]:
        """Image file, whether it is abnormal, and mask file of every image."""

    def train_dataloader(self) -> None:
        """There is nothing to train on.

        Raises:
            ValueError: Always.
        """
        msg = f"{self.name} has no training images; it serves zero-shot tests (anomalib test, Engine.test)."
        raise ValueError(msg)

    def _setup(self, _stage: str | None = None) -> None:
        rows = [(str(image), int(abnormal), str(mask or "")) for image, abnormal, mask in self.rows()]
        if not rows:
            self._refuse("no images were found")
        missing = [path for image, _, mask in rows for path in (image, mask) if path and not Path(path).is_file()]
        if missing:
            self._refuse(f"{len(missing)} files are missing, such as {missing[0]}")
        samples = pd.DataFrame(rows, columns=["image_path", "label_index", "mask_path"])
        samples["label"] = samples.label_index.map({0: "normal", 1: "abnormal"})
        samples["label_index"] = samples.label_index.map({0: LabelName.NORMAL, 1: LabelName.ABNORMAL})
        self.test_data = MedicalDataset(samples, self.task_type, self.class_name)

    def _create_val_split(self) -> None:
        super()._create_val_split()
        ensure_validation_data(self)

    def _refuse(self, reason: str) -> None:
        msg = f"{self.root} does not hold {self.name}: {reason}. Expected in it:\n{self.layout}"
        raise FileNotFoundError(msg)

    def _images(self, folder: str) -> list[Path]:
        path = self.root / folder
        if not path.is_dir():
            self._refuse(f"the folder {folder} is missing")
        return files_in(path)


class HeadCT(MedicalDataModule):
    """Head CT hemorrhage: 200 images with labels."""

    class_name = "head ct"
    task_type = "classification"
    layout = "  labels.csv            (id, hemorrhage)\n  head_ct/head_ct/000.png, 001.png, ..."

    def rows(self) -> Iterable[tuple[Path, bool, Path | None]]:
        """Labels from ``labels.csv``, whose rows number the images."""
        table = self.root / "labels.csv"
        if not table.is_file():
            self._refuse("labels.csv is missing")
        labels = pd.read_csv(table, skipinitialspace=True).rename(columns=str.strip)
        if not {"id", "hemorrhage"} <= set(labels):
            self._refuse(f"labels.csv has the columns {list(labels)}")
        folder = self.root / "head_ct/head_ct"
        return [(folder / f"{row.id:03d}.png", bool(row.hemorrhage), None) for row in labels.itertuples()]


class BrainMRI(MedicalDataModule):
    """Brain MRI for tumour detection: 253 images with labels."""

    class_name = "brain ct"
    task_type = "classification"
    layout = "  brain_tumor_dataset/yes/...   (images with a tumour)\n  brain_tumor_dataset/no/..."

    def rows(self) -> Iterable[tuple[Path, bool, Path | None]]:
        """Labels from the folders ``yes`` and ``no``."""
        folders = {"no": False, "yes": True}
        return [
            (image, label, None)
            for name, label in folders.items()
            for image in self._images(f"brain_tumor_dataset/{name}")
        ]


class ISIC2016(MedicalDataModule):
    """ISIC 2016 skin lesions, part 1: the 379 test images with masks."""

    class_name = "skin"
    task_type = "segmentation"
    layout = (
        "  ISBI2016_ISIC_Part1_Test_Data/ISIC_0000003.jpg, ...\n"
        "  ISBI2016_ISIC_Part1_Test_GroundTruth/ISIC_0000003_Segmentation.png, ..."
    )

    def rows(self) -> Iterable[tuple[Path, bool, Path | None]]:
        """Every image is abnormal and has a mask."""
        masks = self.root / "ISBI2016_ISIC_Part1_Test_GroundTruth"
        images = self._images("ISBI2016_ISIC_Part1_Test_Data")
        return [(image, True, masks / f"{image.stem}_Segmentation.png") for image in images]


class CVCClinicDB(MedicalDataModule):
    """CVC-ClinicDB colon polyps: 612 images with masks."""

    class_name = "colon"
    task_type = "segmentation"
    layout = "  Original/1.tif, 2.tif, ...\n  Ground Truth/1.tif, 2.tif, ..."

    def rows(self) -> Iterable[tuple[Path, bool, Path | None]]:
        """Every image is abnormal and has a mask of its name."""
        return [(image, True, self.root / "Ground Truth" / image.name) for image in self._images("Original")]
