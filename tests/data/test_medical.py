"""The medical data sets: layouts of the releases, whole test set, and what is said of a wrong folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from anomalib.engine import Engine
from PIL import Image

from anomalib_clipad import ClipAD
from anomalib_clipad.data import ISIC2016, BrainMRI, CVCClinicDB, HeadCT
from anomalib_clipad.data.medical import MedicalDataModule


def _image(path: Path, mask: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    disc = np.hypot(*np.mgrid[-20:20, -24:24]) < 9
    Image.fromarray((disc * 255).astype(np.uint8) if mask else pixels).save(path)


def _head_ct(root: Path) -> None:
    for number in range(4):
        _image(root / f"head_ct/head_ct/{number:03d}.png")
    (root / "labels.csv").write_text("id, hemorrhage\n0,1\n1,1\n2,0\n3,0\n")


def _brain_mri(root: Path) -> None:
    for name in ("yes/Y1.jpg", "yes/Y2.JPG", "no/1 no.jpeg", "no/N2.png"):
        _image(root / "brain_tumor_dataset" / name)


def _isic(root: Path) -> None:
    for number in (3, 12):
        _image(root / f"ISBI2016_ISIC_Part1_Test_Data/ISIC_{number:07d}.jpg")
        _image(root / f"ISBI2016_ISIC_Part1_Test_GroundTruth/ISIC_{number:07d}_Segmentation.png", mask=True)


def _cvc(root: Path) -> None:
    for number in (1, 2):
        _image(root / f"Original/{number}.tif")
        _image(root / f"Ground Truth/{number}.tif", mask=True)


SETS: list[tuple[type[MedicalDataModule], Callable[[Path], None], list[int], str]] = [
    (HeadCT, _head_ct, [1, 1, 0, 0], "head ct"),
    (BrainMRI, _brain_mri, [0, 0, 1, 1], "brain ct"),
    (ISIC2016, _isic, [1, 1], "skin"),
    (CVCClinicDB, _cvc, [1, 1], "colon"),
]
each = pytest.mark.parametrize(("module", "write", "labels", "category"), SETS)


@each
def test_a_release_is_the_test_set(
    tmp_path: Path, module: type[MedicalDataModule], write: Callable[[Path], None], labels: list[int], category: str
) -> None:
    write(tmp_path)
    data = module(tmp_path, num_workers=0)
    data.setup()
    (batch,) = data.test_dataloader()
    assert batch.gt_label.int().tolist() == labels
    assert data.category == category
    masked = data.task_type == "segmentation"
    assert (batch.gt_mask is not None) == masked
    if masked:
        assert batch.gt_mask.flatten(1).any(dim=1).all()
    assert len(data.val_data) == len(data.test_data)


@each
def test_it_works_without_validation_data(
    tmp_path: Path, module: type[MedicalDataModule], write: Callable[[Path], None], labels: list[int], category: str
) -> None:
    write(tmp_path)
    data = module(tmp_path, num_workers=0, val_split_mode="none")
    data.setup()
    assert list(data.val_dataloader()) == []
    assert len(data.test_data) == len(labels)


@each
def test_another_layout_is_refused_with_the_expected_one(
    tmp_path: Path, module: type[MedicalDataModule], write: Callable[[Path], None], labels: list[int], category: str
) -> None:
    with pytest.raises(FileNotFoundError, match=f"does not hold {module.__name__}: .*missing") as error:
        module(tmp_path).setup()
    assert module.layout in str(error.value)
    write(tmp_path)
    max(path for path in tmp_path.rglob("*.*") if path.suffix != ".csv" and "Original" not in path.parts).unlink()
    if module is not BrainMRI:  # whose folders may hold any number of images
        with pytest.raises(FileNotFoundError, match="1 files are missing, such as"):
            module(tmp_path).setup()


def test_labels_without_the_right_columns_are_refused(tmp_path: Path) -> None:
    _head_ct(tmp_path)
    (tmp_path / "labels.csv").write_text("name,label\n0,1\n")
    with pytest.raises(FileNotFoundError, match=r"labels.csv has the columns \['name', 'label'\]"):
        HeadCT(tmp_path).setup()


def test_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="HeadCT has no training images"):
        HeadCT(tmp_path).train_dataloader()


@pytest.mark.slow
@pytest.mark.parametrize(("module", "write"), [entry[:2] for entry in SETS])
def test_a_zero_shot_test_reports_the_metrics_that_exist(
    tmp_path: Path, tiny: dict[str, str], module: type[MedicalDataModule], write: Callable[[Path], None]
) -> None:
    write(tmp_path / "data")
    engine = Engine(default_root_dir=tmp_path / "results", logger=False, accelerator="cpu", devices=1)
    (metrics,) = engine.test(model=ClipAD(**tiny), datamodule=module(tmp_path / "data", num_workers=0))
    assert any(name.startswith("image_" if module.task_type == "classification" else "pixel_") for name in metrics)
