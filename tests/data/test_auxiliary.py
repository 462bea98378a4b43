"""Auxiliary: what it trains on, in which order, and what it refuses."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from anomalib.data import Folder, MVTecAD, get_datamodule

from anomalib_clipad.data import Auxiliary, GeneratedParts
from anomalib_clipad.data.auxiliary import EpochShuffle

FEW = {"good_images": 2, "defective_images": 7, "train_images": 1, "image_size": 64}


def parts(root: Path, category: str = "washer", **options: int) -> GeneratedParts:
    return GeneratedParts(root, category, **{**FEW, **options})


def ready(data: Auxiliary) -> Auxiliary:
    data.prepare_data()
    data.setup()
    return data


def test_it_trains_on_whole_test_splits_and_tests_on_the_target(tmp_path: Path) -> None:
    data = ready(Auxiliary(parts(tmp_path), parts(tmp_path, "wood"), ["washer", "leather"]))
    assert data.category == "wood"
    assert len(data.train_data) == 2 * (2 + 7)
    assert sorted(set(data.class_names.values())) == ["leather", "washer"]
    for path, name in data.class_names.items():
        assert Path(path).parents[2].name.startswith(f"{name}-")
        assert Path(path).parents[1].name == "test"
    assert all("wood" in str(path) for path in data.test_data.samples.image_path)
    batch = next(iter(data.train_dataloader()))
    assert len(batch.image) == 8
    assert batch.gt_mask.any(dim=(1, 2)).tolist() == batch.gt_label.bool().tolist()


def test_all_categories_are_the_default(tmp_path: Path) -> None:
    assert Auxiliary(parts(tmp_path), parts(tmp_path, "wood")).categories == list(GeneratedParts.CATEGORIES)
    mvtec = Auxiliary(MVTecAD(tmp_path), parts(tmp_path, "wood"))
    assert len(mvtec.categories) == 15
    assert "metal_nut" in mvtec.categories


def test_configurations_name_source_and_target(tmp_path: Path) -> None:
    module = {"class_path": "GeneratedParts", "init_args": {"root": str(tmp_path), **FEW}}
    arguments = {"source": module, "target": {**module, "init_args": {**module["init_args"], "category": "wood"}}}
    data = get_datamodule({"class_path": "Auxiliary", "init_args": {**arguments, "categories": ["nut"]}})
    assert isinstance(data.source, GeneratedParts)
    assert data.category == "wood"


def test_the_order_depends_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    data = ready(Auxiliary(parts(tmp_path), parts(tmp_path, "wood"), ["washer"], shuffle=True, seed=3))
    sampler = data.train_dataloader().sampler
    assert isinstance(sampler, EpochShuffle)
    first = list(sampler)
    assert sorted(first) == list(range(9))
    sampler.set_epoch(1)
    second = list(sampler)
    assert first != second
    again = data.train_dataloader().sampler
    again.set_epoch(1)
    assert list(again) == second
    plain = ready(Auxiliary(parts(tmp_path), parts(tmp_path, "wood"), ["washer"]))
    assert list(plain.train_dataloader().sampler) == list(range(9))


def test_pictures_of_the_target_are_refused_unless_forced(tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    with pytest.raises(ValueError, match="9 training pictures are also in the target GeneratedParts 'washer'"):
        ready(Auxiliary(parts(tmp_path), parts(other), ["washer", "nut"]))  # equal by content, not by path
    assert len(ready(Auxiliary(parts(tmp_path), parts(other), ["washer"], allow_overlap=True)).train_data) == 9


def test_a_category_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="share pictures"):
        ready(Auxiliary(parts(tmp_path), parts(tmp_path, "wood"), ["nut", "nut"]))


def folder_of(source: Path, **options: str) -> Folder:
    layout = {"normal_dir": "train/good", "abnormal_dir": "test/hole", "normal_test_dir": "test/good"}
    return Folder("bolts", root=source, val_split_mode="same_as_test", **{**layout, **options})


@pytest.fixture
def bolts(tmp_path: Path) -> Path:
    """A folder with masks, free to be damaged."""
    data = parts(tmp_path / "generated", "bolt")
    data.prepare_data()
    return Path(shutil.copytree(data.folder, tmp_path / "bolts"))


def test_a_folder_needs_a_name_for_its_prompts(bolts: Path, tmp_path: Path) -> None:
    source = folder_of(bolts, mask_dir="ground_truth/hole")
    with pytest.raises(ValueError, match="a category without a name"):
        ready(Auxiliary(source, parts(tmp_path, "wood")))
    data = ready(Auxiliary(source, parts(tmp_path, "wood"), ["bolt"]))
    assert set(data.class_names.values()) == {"bolt"}


def test_pictures_without_masks_are_refused(bolts: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"need masks of defects to train on.*and 0 others have none"):
        ready(Auxiliary(folder_of(bolts), parts(tmp_path, "wood"), ["bolt"]))


def test_masks_without_a_defect_are_refused(bolts: Path, tmp_path: Path) -> None:
    mask = bolts / "ground_truth/hole/000_mask.png"
    cv2.imwrite(str(mask), np.zeros((64, 64), np.uint8))
    with pytest.raises(ValueError, match="are empty: there is nothing to learn from"):
        ready(Auxiliary(folder_of(bolts, mask_dir="ground_truth/hole"), parts(tmp_path, "wood"), ["bolt"]))


def test_masks_of_another_size_are_refused(bolts: Path, tmp_path: Path) -> None:
    mask = bolts / "ground_truth/hole/000_mask.png"
    cv2.imwrite(str(mask), np.full((32, 64), 255, np.uint8))
    with pytest.raises(ValueError, match=r"is \(64, 64\) pixels wide and high, its mask .* \(64, 32\)"):
        ready(Auxiliary(folder_of(bolts, mask_dir="ground_truth/hole"), parts(tmp_path, "wood"), ["bolt"]))


def test_rvs_options_of_the_source_come_as_plain_data(tmp_path: Path) -> None:
    module = {"class_path": "GeneratedParts", "init_args": {"root": str(tmp_path), **FEW}}
    arguments = {"source": module, "target": module, "rvs_options": {"eps": 1.5, "min_samples": 25}}
    data = get_datamodule({"class_path": "Auxiliary", "init_args": arguments})
    assert type(data.rvs_options) is dict
    assert data.rvs_options == {"eps": 1.5, "min_samples": 25}
    assert Auxiliary(parts(tmp_path), parts(tmp_path, "wood")).rvs_options is None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("train_batch_size", 0, "a whole number, 1 or more; got 0"),
        ("train_batch_size", 2.5, "a whole number, 1 or more; got 2.5"),
        ("train_batch_size", True, "a whole number, 1 or more; got True"),
        ("train_batch_size", "8", "a whole number, 1 or more; got '8'"),
        ("num_workers", -1, "a whole number, 0 or more; got -1"),
        ("num_workers", None, "a whole number, 0 or more; got None"),
        ("seed", -1, "a whole number, 0 or more; got -1"),
        ("categories", "washer", "a list of names; got 'washer'"),
    ],
)
def test_arguments_that_make_no_sense_are_named(tmp_path: Path, name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"Auxiliary: {name} has to be {expected}"):
        Auxiliary(parts(tmp_path), parts(tmp_path, "wood"), **{name: value})
