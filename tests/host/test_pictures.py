"""The image under a heat map: the file's, as it was read, otherwise the item's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import ImageItem, NumpyImageItem
from conftest import save
from PIL import Image

from anomalib_clipad.host import pictures


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The items and options that anomalib is given to draw."""
    given: list[Any] = []
    monkeypatch.setattr(pictures, "host_visualize", lambda *item, **options: given.extend([*item, options]))
    return given


def item(path: Path | str | None, image: torch.Tensor | None = None) -> ImageItem:
    return ImageItem(image=torch.rand(3, 8, 6) if image is None else image, image_path=path and str(path))


def test_an_item_without_a_path_is_left_to_anomalib(shown: list[Any]) -> None:
    given = item(None)
    pictures.visualize(given, ["image"], alpha=0.5)
    assert shown[0] is given
    assert shown[1:] == [["image"], {"alpha": 0.5}]


def test_a_turned_photograph_is_shown_as_it_was_read(shown: list[Any], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    pictures.visualize(item(tmp_path / "a.png"))
    expected = torch.from_numpy(np.rot90(pixels, -1) / 255).float().permute(2, 0, 1)
    torch.testing.assert_close(shown[0].image, expected)


def test_deep_files_are_shown_as_they_were_read(shown: list[Any], tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 48).astype(np.uint16).reshape(8, 6)
    given = item(save(tmp_path / "a.png", levels))
    pictures.visualize(given)
    torch.testing.assert_close(shown[0].image, torch.from_numpy(levels / 65535).float().expand(3, 8, 6))
    assert shown[0].image_path is None
    assert given.image_path == str(tmp_path / "a.png")


def test_without_a_file_the_normalised_image_is_shown_from_black_to_white(shown: list[Any]) -> None:
    image = torch.tensor([-2.0, -1.0, 2.0]).view(3, 1, 1).expand(3, 8, 6)
    pictures.visualize(item("camera 1", image))
    assert shown[0].image[:, 0, 0].tolist() == [0, 0.25, 1]
    assert shown[0].image_path is None


def test_a_constant_image_without_a_file_is_black(shown: list[Any]) -> None:
    pictures.visualize(item("camera 1", torch.full((3, 8, 6), 0.7)))
    assert shown[0].image.unique().tolist() == [0]


def test_items_of_numpy_are_left_to_anomalib(shown: list[Any]) -> None:
    given = NumpyImageItem(image=np.zeros((8, 6, 3), np.float32), image_path="camera 1")
    pictures.visualize(given)
    assert shown[0] is given
