"""Masks of turned photographs lie on what they were drawn on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from conftest import save
from PIL import Image, ImageOps

from anomalib_clipad.data.reading import read_image, read_mask, read_mask_size, read_size
from anomalib_clipad.data.replacement import readers_replaced

PIXELS = np.random.default_rng(0).integers(256, size=(6, 9, 3), dtype=np.uint8)
MASK = np.zeros((6, 9), np.uint8)
MASK[1, 2:8] = 255


def photograph(path: Path, orientation: int, pixels: np.ndarray = PIXELS) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def upright(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Pixels turned as Pillow turns a file."""
    with Image.open(path) as image:
        other = Image.fromarray(pixels)
        other.getexif()[0x0112] = image.getexif().get(0x0112, 1)
        return np.asarray(ImageOps.exif_transpose(other))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_mask_of_the_unturned_pixels_is_turned_with_its_image(tmp_path: Path, orientation: int) -> None:
    image, mask = photograph(tmp_path / "a.png", orientation), save(tmp_path / "mask.png", MASK)
    for as_tensor in (True, False):
        read_image(image, as_tensor)
        with pytest.warns(UserWarning, match=rf"a\.png is turned as its EXIF orientation {orientation} says.*unturned"):
            found = read_mask(mask, as_tensor)
        assert np.array_equal(np.asarray(found) > 0, upright(image, MASK) > 0)
        assert isinstance(found, torch.Tensor) == as_tensor
    with pytest.warns(UserWarning, match="unturned"):
        assert read_mask_size(mask, image) == read_size(image)


def test_a_mask_of_the_turned_image_is_left_as_it_is(tmp_path: Path) -> None:
    image = photograph(tmp_path / "a.jpg", 6)
    mask = save(tmp_path / "mask.png", upright(image, MASK))
    read_image(image)
    with pytest.warns(UserWarning, match="drawn on the turned image, and left as it is"):
        assert np.array_equal(read_mask(mask), upright(image, MASK))


def test_a_mask_with_an_orientation_of_its_own_follows_that(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image = photograph(tmp_path / "a.png", 6)
    for name in ("mask.png", "mask.tif"):
        mask = photograph(tmp_path / name, 6, MASK)
        read_image(image)
        assert np.array_equal(read_mask(mask), upright(image, MASK))
    assert not recwarn.list


def test_only_the_mask_that_follows_an_image_is_turned(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    turned, plain = photograph(tmp_path / "a.png", 6), save(tmp_path / "plain.png", PIXELS)
    mask = save(tmp_path / "mask.png", MASK)
    read_image(turned)
    read_image(plain)
    assert np.array_equal(read_mask(mask), MASK)
    read_image(turned)
    read_mask(mask)
    recwarn.clear()
    assert np.array_equal(read_mask(mask), MASK)
    assert not recwarn.list


@pytest.fixture
def replaced() -> Iterator[None]:
    with readers_replaced():
        yield


@pytest.mark.usefixtures("replaced")
def test_image_and_mask_of_a_data_set_lie_on_each_other(tmp_path: Path) -> None:
    save(tmp_path / "good/0.png", PIXELS)
    defect = np.where(MASK[..., None] > 0, 255, 0).astype(np.uint8).repeat(3, axis=2)
    photograph(tmp_path / "bad/1.png", 6, defect)
    save(tmp_path / "mask/1.png", MASK)
    data = Folder("x", root=tmp_path, normal_dir="good", abnormal_dir="bad", mask_dir="mask", num_workers=0)
    data.setup()
    with pytest.warns(UserWarning, match="orientation 6"):
        item = next(item for item in data.test_data if item.gt_label)
    assert item.image.shape == (3, 9, 6)
    assert torch.equal(item.image[0] > 0.5, item.gt_mask > 0)
