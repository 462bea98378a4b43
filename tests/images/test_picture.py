"""Whatever holds an image becomes the same RGB array."""

from pathlib import Path

import cv2
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


@pytest.mark.parametrize(
    "tensor",
    [
        torch.quantize_per_tensor(torch.rand(3, 4, 5), 0.01, 0, torch.quint8),
        torch.rand(3, 4, 5, device="meta"),
        torch.rand(4, 5).to_sparse(),
        torch.zeros(3, 4, 5, dtype=torch.complex64),
        torch.zeros(3, 4, 5, dtype=torch.float8_e4m3fn),
    ],
    ids=["quantised", "meta", "sparse", "complex", "float8"],
)
def test_a_tensor_without_plain_numbers_is_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(UnreadableError, match="uint8"):
        read(tensor)


@pytest.mark.parametrize("mode", ["RGB", "I", "F", "1", "RGBA", "P"])
def test_an_empty_image_of_pillow_is_refused(mode: str) -> None:
    with pytest.raises(UnreadableError, match="it is empty: 0 x 5 pixels"):
        read(Image.new(mode, (0, 5)))


def test_images_of_pillow_whose_white_is_not_known_are_refused() -> None:
    with pytest.raises(UnreadableError, match="32-bit integers, here from 7 to 7"):
        read(Image.new("I", (4, 5), 7))
    with pytest.raises(UnreadableError, match="floats from 7 to 7"):
        read(Image.new("F", (4, 5), 7))
    assert (read(Image.new("F", (4, 5), 0.25)).pixels == 0.25).all()


@pytest.mark.parametrize("source", [5000 * "x" + ".png", "a\0b.png", "gone.png"])
def test_a_name_that_leads_to_no_file_is_refused(source: str) -> None:
    with pytest.raises(UnreadableError, match="cannot be read"):
        read(source)


def test_an_error_in_place_of_an_image_is_raised() -> None:
    given = UnreadableError("list.txt is damaged.")
    with pytest.raises(UnreadableError) as raised:
        read(given)
    assert raised.value is given


@pytest.mark.parametrize(("brightest", "dark"), [(4095, True), (60_000, False)])
@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 3)])
def test_a_dark_file_of_16_bits_says_so(tmp_path: Path, brightest: int, dark: bool, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(brightest, size=shape, dtype=np.uint16)
    values.flat[:3] = brightest
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), values)
    for _ in range(2):  # each image says so, while the log names a folder once
        remark = read(path).remark
        assert (remark is not None and f"no value above {brightest}" in remark) is dark
