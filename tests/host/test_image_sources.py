"""Which images are references, which calibrate, which make a pool; and which may not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import AnomalibDataModule
from conftest import save
from pandas import DataFrame
from torch.utils.data import DataLoader

from anomalib_clipad import ClipADModel
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.host.calibration import CalibrationSource, calibration_files, check_guarantee
from anomalib_clipad.host.references import References, fill_pool, reference_images
from anomalib_clipad.predictor.live import LivePredictor
from anomalib_clipad.vision.pool import choose, key_of


class Items:
    """A data set of grey images, each with its number as its level; training makes them lighter."""

    augmentations: Any = "lighter"

    def __init__(self, *labels: int) -> None:
        names = [f"{row}.png" for row in range(len(labels))]
        self.samples = DataFrame({"label_index": labels, "image_path": names})

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> Any:
        return SimpleNamespace(image=np.full((32, 32, 3), row + 100 * (self.augmentations is not None), np.uint8))


class Data(AnomalibDataModule):
    """A datamodule with such a training split and a validation split."""

    def __init__(self, train: Any = (), validation: Any = ()) -> None:
        super().__init__(1, 1, 0)
        self.train_data, self.val_data = Items(*train), Items(*validation)

    def _setup(self, stage: str | None = None) -> None: ...


# References


def test_the_first_normal_images_are_taken_as_they_are() -> None:
    names, images = reference_images(References(k_shot=2), Data(train=(1, 0, 1, 0, 0)))
    assert names == ["1.png", "3.png"]
    assert [int(image.pixels[0, 0, 0]) for image in images] == [1, 3]


def test_of_a_folder_the_first_are_taken(tmp_path: Path) -> None:
    for row in range(3):
        save(tmp_path / f"{row}.png", np.full((8, 8, 3), row, np.uint8))
    names, images = reference_images(References(k_shot=2, source=tmp_path), None)
    assert [Path(name).name for name in names] == ["0.png", "1.png"]
    assert [int(image.pixels[0, 0, 0]) for image in images] == [0, 1]
    with pytest.raises(ValueError, match="has 3 normal images; k_shot is 4"):
        reference_images(References(k_shot=4, source=tmp_path), None)


def test_what_does_not_go_with_references_is_refused(tmp_path: Path) -> None:
    (product := tmp_path / "a.safetensors").touch()
    for options in ({"k_shot": 1}, {"memory_size": 9}):
        with pytest.raises(ValueError, match="A product file has its memory already"):
            References(source=product, **options)
    with pytest.raises(ValueError, match=r"mutual compares whole images and cannot be used with tiles=\[2, 3\]"):
        References(mutual=True).check_tiles((2, 3), False)
    with pytest.raises(ValueError, match="aligned compares tiles with those of normal images"):
        References().check_tiles((2, 3), True)
    References(k_shot=1).check_tiles((2, 3), True)
    References(mutual=True).check_tiles(None, False)


# Calibration


def test_the_first_source_that_is_there_calibrates(tmp_path: Path) -> None:
    few, data = References(k_shot=2), Data(validation=(0, 0))
    split = (["0.png", "1.png"], f"The validation split of {data.name}")
    assert calibration_files(CalibrationSource(), few, data) == split
    assert calibration_files(CalibrationSource(split="references"), few, data) == (None, "The references")
    assert calibration_files(CalibrationSource(), few, Data()) == (None, "The references")
    save(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    files, origin = calibration_files(CalibrationSource(tmp_path), few, data)
    assert (files, origin) == ([str(tmp_path / "a.png")], f"The folder '{tmp_path}'")


@pytest.mark.parametrize(
    ("source", "few", "validation", "message"),
    [
        (None, References(k_shot=2), (0, 1, 1), "holds 2 defective images"),
        ("validation", References(k_shot=2), (), "takes normal images to calibrate on, and there are none"),
        ("references", References(), (0, 0), "takes normal images to calibrate on, and there are none"),
    ],
)
def test_no_other_images_calibrate_than_those_that_were_named(
    source: str | None, few: References, validation: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        calibration_files(CalibrationSource.of(source), few, Data(validation=validation))


def test_what_makes_no_guarantee_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match=r"got 1\.5"):
        check_guarantee(1.5, None, mutual=False)
    with pytest.raises(ValueError, match="depend on the other images of its run"):
        check_guarantee(0.1, None, mutual=True)
    with pytest.raises(ValueError, match="pass false_alarm_rate too"):
        check_guarantee(None, "references", mutual=False)
    assert check_guarantee(None, None, mutual=True) == CalibrationSource()
    assert check_guarantee(0.1, "references", mutual=False).split == "references"


# Pools


class Noise:
    """Nine images of noise."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(row))


def test_a_pool_holds_the_chosen_images_of_a_loader(backbone: Backbone) -> None:
    predictor = LivePredictor(ClipADModel(backbone, text_weight=0.0), lambda images: 2 * images - 1)
    loader = DataLoader(Noise(), batch_size=4, collate_fn=lambda items: SimpleNamespace(image=torch.stack(items)))
    fill_pool(predictor, loader, 5, 0, 1)
    chosen = [2 * Noise()[row] - 1 for row in choose(9, 5)]
    pool = predictor.model.pool
    assert pool.rows == {key_of(image): row for row, image in enumerate(chosen)}
    expected = predictor.model.examine(torch.stack(chosen)).tokens
    torch.testing.assert_close(pool.evidence.tokens, expected, atol=1e-5, rtol=0)
