"""The image under a heat map: the file's where anomalib reads it rightly, otherwise the item's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import ImageItem, NumpyImageItem
from conftest import save

from anomalib_clipad.host import pictures


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The items and options that anomalib is given to draw."""
    given: list[Any] = []
    monkeypatch.setattr(pictures, "host_visualize", lambda *item, **options: given.extend([*item, options]))
    return given


def item(path: Path | str | None, image: torch.Tensor | None = None) -> ImageItem:
    return ImageItem(image=torch.rand(3, 8, 6) if image is None else image, image_path=path and str(path))


def test_files_of_8_bits_are_left_to_anomalib(shown: list[Any], tmp_path: Path) -> None:
    for given in (item(save(tmp_path / "a.png", np.zeros((8, 6), np.uint8))), item(None)):
        shown.clear()
        pictures._visualize(given, ["image"], alpha=0.5)
        assert shown[0] is given
        assert shown[1:] == [["image"], {"alpha": 0.5}]


def test_deep_files_are_shown_as_they_were_read(shown: list[Any], tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 48).astype(np.uint16).reshape(8, 6)
    given = item(save(tmp_path / "a.png", levels))
    pictures._visualize(given)
    torch.testing.assert_close(shown[0].image, torch.from_numpy(levels / 65535).float().expand(3, 8, 6))
    assert shown[0].image_path is None
    assert given.image_path == str(tmp_path / "a.png")


def test_without_a_file_the_normalised_image_is_shown_from_black_to_white(shown: list[Any]) -> None:
    image = torch.tensor([-2.0, -1.0, 2.0]).view(3, 1, 1).expand(3, 8, 6)
    pictures._visualize(item("camera 1", image))
    assert shown[0].image[:, 0, 0].tolist() == [0, 0.25, 1]
    assert shown[0].image_path is None


def test_a_constant_image_without_a_file_is_black(shown: list[Any]) -> None:
    pictures._visualize(item("camera 1", torch.full((3, 8, 6), 0.7)))
    assert shown[0].image.unique().tolist() == [0]


def test_items_of_numpy_are_left_to_anomalib(shown: list[Any]) -> None:
    given = NumpyImageItem(image=np.zeros((8, 6, 3), np.float32), image_path="camera 1")
    pictures._visualize(given)
    assert shown[0] is given
