"""One rule for every kind of file: turned as EXIF says, on white where it is transparent, the first frame."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin

from anomalib_clipad.data.reading import read_image
from anomalib_clipad.images.picture import UnreadableError, read
from anomalib_clipad.images.size import read_size

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(256, size=(6, 9, 3), dtype=np.uint8)
ALPHA = np.array([0, 1, 64, 127, 128, 200, 254, 255, 255], np.uint8) * np.ones((6, 1), np.uint8)
RGBA = np.dstack([PIXELS, ALPHA])


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The composite, from its definition and in double precision."""
    share = alpha[..., None] / 255
    return (np.round(colour * share) + 255 * (1 - share)).round().astype(np.uint8)


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png(bits: int, kind: int, rows: list[bytes], chunks: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of 8 pixels in a row, of any depth and kind of colour."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, len(rows), bits, kind, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + chunks + pixels + after + chunk(b"IEND", b"")


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_at_every_door(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(PIXELS).save(path, exif=oriented(orientation), **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert expected.shape == ((9, 6, 3) if orientation > 4 else (6, 9, 3))
    with Image.open(path) as image:
        assert np.array_equal(read(image).shown, expected)
    assert np.array_equal(read(path).shown, expected)
    assert read_size(path) == expected.shape[:2]
    assert np.array_equal((255 * read_image(path)).round(), expected)
    assert np.array_equal((255 * read_image(path, as_tensor=True)).round().permute(1, 2, 0).numpy(), expected)


def test_only_exif_before_the_pixels_turns_as_in_browsers(tmp_path: Path) -> None:
    xmp = PngImagePlugin.PngInfo()
    xmp.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    Image.fromarray(PIXELS).save(tmp_path / "xmp.png", pnginfo=xmp)
    rows = [bytes(range(8))] * 3
    (tmp_path / "late.png").write_bytes(png(8, 0, rows, after=chunk(b"eXIf", oriented(6).tobytes()[6:])))
    for name, shape in {"xmp.png": (6, 9), "late.png": (3, 8)}.items():
        assert read(tmp_path / name).pixels.shape[:2] == shape
        assert read_size(tmp_path / name) == shape


def test_the_orientation_of_an_image_in_memory_counts() -> None:
    image = Image.fromarray(PIXELS)
    image.getexif()[0x0112] = 3
    assert np.array_equal(read(image).pixels, PIXELS[::-1, ::-1])


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_what_is_transparent_is_white_whatever_is_hidden_there(tmp_path: Path, name: str) -> None:
    Image.fromarray(RGBA).save(tmp_path / name, **({"lossless": True, "exact": True} if name == "a.webp" else {}))
    shown = read(tmp_path / name).shown
    assert np.array_equal(shown, on_white(PIXELS, ALPHA))
    assert (shown[:, 0] == 255).all()
    assert np.array_equal(shown[:, 7:], PIXELS[:, 7:])
    assert np.array_equal((255 * read_image(tmp_path / name)).round(), shown)


def test_every_way_in_composites_alike() -> None:
    expected = on_white(PIXELS, ALPHA)
    floats = RGBA / np.float64(255)
    tensor = torch.from_numpy(RGBA).permute(2, 0, 1)
    for way in (RGBA, floats, floats.astype(np.float16), Image.fromarray(RGBA), tensor, tensor / 255):
        assert np.array_equal(read(way).shown, expected), type(way)
    assert np.array_equal(read(RGBA[..., [2, 1, 0, 3]], "bgr").shown, expected)
    between = np.full((2, 2, 4), 0.301)
    assert read(between).pixels == pytest.approx(0.301 * 0.301 + 1 - 0.301)


def test_grey_with_alpha_palettes_and_single_colours_are_composited(tmp_path: Path) -> None:
    grey = PIXELS[..., 0]
    expected = on_white(np.repeat(grey[..., None], 3, axis=2), ALPHA)
    assert np.array_equal(read(Image.fromarray(np.dstack([grey, ALPHA]), "LA")).shown, expected)
    entries = (np.arange(54) % 5).astype(np.uint8).reshape(6, 9)
    palette = Image.fromarray(entries, "P")
    colours = RNG.integers(256, size=(5, 3), dtype=np.uint8)
    palette.putpalette(colours.tobytes())
    palette.save(tmp_path / "plain.png")
    assert np.array_equal(read(tmp_path / "plain.png").shown, colours[entries])
    palette.save(tmp_path / "one.gif", transparency=2)
    assert np.array_equal(read(tmp_path / "one.gif").shown, np.where((entries == 2)[..., None], 255, colours[entries]))
    alphas = np.array([0, 90, 255, 10, 128], np.uint8)
    palette.save(tmp_path / "several.png", transparency=alphas.tobytes())
    assert np.array_equal(read(tmp_path / "several.png").shown, on_white(colours[entries], alphas[entries]))
    Image.fromarray(PIXELS).save(tmp_path / "key.png", transparency=tuple(PIXELS[2, 3].tolist()))
    expected = PIXELS.copy()
    expected[2, 3] = 255
    assert np.array_equal(read(tmp_path / "key.png").shown, expected)


@pytest.mark.parametrize(("bits", "key"), [(1, 0), (2, 1), (4, 9), (8, 77), (16, 3000)])
def test_the_transparent_grey_of_a_png_is_one_of_its_own_depth(tmp_path: Path, bits: int, key: int) -> None:
    levels = [key, 0, 2**bits - 1, key, 0, 0, 2**bits - 1, key]
    row = int("".join(f"{level:0{bits}b}" for level in levels), 2).to_bytes(bits, "big")
    (tmp_path / "a.png").write_bytes(png(bits, 0, [row], chunk(b"tRNS", struct.pack(">H", key))))
    expected = [255 if level == key else round(255 * level / (2**bits - 1)) for level in levels]
    assert read(tmp_path / "a.png").shown[0, :, 1].tolist() == expected


def test_a_transparent_colour_of_16_bits_is_refused(tmp_path: Path) -> None:
    row = bytes(range(48))
    (tmp_path / "a.png").write_bytes(png(16, 2, [row], chunk(b"tRNS", row[:6])))
    with pytest.raises(UnreadableError, match=r"a\.png cannot be read .*save it with 8 bits"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_several_frames_the_first_is_looked_at_with_a_warning(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(np.full((6, 9, 3), level, np.uint8)) for level in (50, 100, 150)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=rf"{name} has 3 frames or pages; only number 1 is looked at"):
        assert np.abs(read(tmp_path / name).shown.astype(int) - 50).max() <= 2


def test_the_smaller_copies_in_an_mpo_bring_no_warning(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    image.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[image])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path / "a.jpg").pixels.shape == (6, 9, 3)


def test_cmyk_is_read_as_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (9, 6), (0, 255, 255, 0)).save(tmp_path / "red.tif")
    assert (read(tmp_path / "red.tif").pixels == [255, 0, 0]).all()


def test_bool_and_half_precision_are_read_where_they_have_one_meaning() -> None:
    flags = PIXELS[..., 0] > 128
    assert np.array_equal(read(flags).pixels[..., 1], np.where(flags, 255, 0))
    assert np.array_equal(read(torch.from_numpy(flags)).pixels[..., 1], np.where(flags, 255, 0))
    levels = torch.tensor([[0.0, 0.25], [0.5, 1.0]], dtype=torch.bfloat16)
    assert read(levels).pixels[..., 0].tolist() == [[0, 0.25], [0.5, 1]]
    assert np.array_equal(read(torch.from_numpy(PIXELS).permute(2, 0, 1).half() / 255).shown, PIXELS)
    for wrong in (torch.full((3, 4), 20.0, dtype=torch.bfloat16), torch.zeros((3, 4), dtype=torch.int64)):
        with pytest.raises(UnreadableError, match=r"floats in \[0, 1\]"):
            read(wrong)


def test_a_damaged_pillow_image_is_refused_as_a_damaged_file_is(tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(256, size=(60, 90, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    with Image.open(tmp_path / "a.png") as image, pytest.raises(UnreadableError, match=r"a\.png cannot be read"):
        read(image)


def test_the_small_copy_in_a_raw_file_is_not_taken_for_the_photograph(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "photo.nef", "TIFF", tiffinfo={254: 1})
    with pytest.raises(UnreadableError, match=r"photo\.nef cannot be read \(its first page is a small copy"):
        read(tmp_path / "photo.nef")
