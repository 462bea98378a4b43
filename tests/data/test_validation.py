"""Data modules without validation data: every command of anomalib runs, and says what is impossible."""

from pathlib import Path

import pytest
from anomalib.data import AnomalibDataModule, Folder
from conftest import TINY, make_engine

from anomalib_clipad import ClipAD
from anomalib_clipad.data import Auxiliary, GeneratedParts

FEW = {"good_images": 2, "defective_images": 7, "train_images": 1, "image_size": 64}


def folder(parts: Path, mode: str) -> Folder:
    layout = {"normal_dir": "train/good", "abnormal_dir": "test/scratch", "normal_test_dir": "test/good"}
    masks = "ground_truth/scratch"
    return Folder("bolt", root=parts / "bolt", **layout, mask_dir=masks, val_split_mode=mode, num_workers=0)


def data_module(kind: str, parts: Path, mode: str) -> AnomalibDataModule:
    if kind == "Folder":
        return folder(parts, mode)
    own = GeneratedParts(category="wood", **FEW, val_split_mode=mode)
    if kind == "Auxiliary":
        return Auxiliary(GeneratedParts(category="washer", **FEW), own, ["washer"])
    return own


@pytest.fixture(scope="module")
def model() -> ClipAD:
    return ClipAD(**TINY, class_name="bolt", visualizer=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Folder", "Auxiliary"])
@pytest.mark.filterwarnings("error:Total length")
def test_without_validation_data_tests_and_predictions_are_probabilities(
    model: ClipAD, parts: Path, tmp_path: Path, kind: str
) -> None:
    (metrics,) = make_engine(tmp_path).test(model, datamodule=data_module(kind, parts, "none"))
    assert {"image_AUROC", "pixel_PRO"} <= set(metrics)
    predicted = make_engine(tmp_path).predict(model, datamodule=data_module(kind, parts, "none"))
    given = make_engine(tmp_path).predict(model, data_path=predicted[0].image_path[0])
    assert predicted[0].pred_score[0].item() == pytest.approx(given[0].pred_score.item(), abs=1e-4)
    assert make_engine(tmp_path).validate(model, datamodule=data_module(kind, parts, "none")) in ([], [{}])


@pytest.mark.parametrize("kind", ["Folder", "Auxiliary"])
def test_validation_from_a_folder_that_does_not_exist_is_explained(
    model: ClipAD, parts: Path, tmp_path: Path, kind: str
) -> None:
    with pytest.raises(ValueError, match=r"no folder of validation images.*none, same_as_test, from_train, from_test"):
        make_engine(tmp_path).test(model, datamodule=data_module(kind, parts, "from_dir"))


def test_validation_data_of_ones_own_are_left_alone(model: ClipAD, parts: Path, tmp_path: Path) -> None:
    class Own(Folder):
        def val_dataloader(self) -> list:
            self.asked = True
            return []

    data = folder(parts, "from_dir")
    data.__class__ = Own
    make_engine(tmp_path).test(model, datamodule=data)
    assert data.asked


@pytest.mark.parametrize("kind", ["GeneratedParts", "Auxiliary"])
def test_own_data_modules_have_an_empty_validation_set_for_any_model(parts: Path, kind: str) -> None:
    data = data_module(kind, parts, "none")
    data.setup()
    assert len(data.val_data) == 0
    assert list(data.val_dataloader()) == []
    assert len(data.test_data) == 9
