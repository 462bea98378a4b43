"""Whatever holds an image becomes the same RGB array."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_clipad.images.picture import Picture, UnreadableError, read

PIXELS = np.random.default_rng(0).integers(256, size=(6, 9, 3), dtype=np.uint8)


def test_every_way_in_gives_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(PIXELS).save(path)
    ways = [path, str(path), Image.fromarray(PIXELS), PIXELS, torch.from_numpy(PIXELS).permute(2, 0, 1)]
    for way in ways:
        assert np.array_equal(read(way).pixels, PIXELS), type(way)
    assert np.array_equal(read(PIXELS[..., ::-1], "bgr").pixels, PIXELS)
    floats = PIXELS.astype(np.float64) / 255
    assert np.abs(read(floats).levels - PIXELS.transpose(2, 0, 1) / 255).max() < 1e-6
    assert np.array_equal(read(floats).shown, PIXELS)
    assert read(path).path == path
    assert read(Picture(PIXELS, path)).path == path


def test_grey_images_have_three_channels(tmp_path: Path) -> None:
    grey = PIXELS[..., 0]
    assert np.array_equal(read(grey).pixels, np.repeat(grey[..., None], 3, axis=2))
    path = tmp_path / "deep.png"
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    assert np.abs(read(path).pixels[..., 1] - grey / 255).max() < 1e-6


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_a_viewer_turns_it(tmp_path: Path, orientation: int, deep: bool, suffix: str) -> None:
    path = tmp_path / f"turned.{suffix}"
    image = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257) if deep else Image.fromarray(PIXELS)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    upright = {1: "", 2: "x", 3: "xy", 4: "y", 5: "t", 6: "tx", 7: "txy", 8: "ty"}[orientation]
    expected = PIXELS
    for step in upright:
        expected = {"t": expected.swapaxes(0, 1), "x": expected[:, ::-1], "y": expected[::-1]}[step]
    shown = read(path).shown
    assert np.array_equal(shown[..., 0], expected[..., 0])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((4, 4), np.int32), "uint8"),
        (np.full((4, 4), 3.0), "Divide"),
        (np.full((4, 4), np.nan), "floats in"),
        (3, "numpy array"),
        (np.zeros((40, 40), np.uint8), "1,600 pixels"),
    ],
)
def test_what_is_no_image_says_what_to_do(source: object, message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        read(source, max_pixels=1000)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n broken"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=r"broken\.png cannot be read"):
        read(path)


@pytest.mark.slow
def test_a_decompression_bomb_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(UnreadableError, match=r"bomb\.png.*pixels"):
        read(path)
