"""Masks of what to ignore, as tools write them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_clipad.images.mask import read_mask
from anomalib_clipad.images.picture import Picture, UnreadableError

HIDDEN = np.zeros((6, 9), bool)
HIDDEN[1:3, 2:8] = True
WHITE = HIDDEN * np.uint8(255)
RGB = np.repeat(WHITE[..., None], 3, axis=2)


def palette(colours: list[int], entries: np.ndarray = HIDDEN) -> Image.Image:
    image = Image.fromarray(entries.astype(np.uint8), "P")
    image.putpalette(colours)
    return image


def layer(under: int) -> np.ndarray:
    """White strokes on a transparent layer, with a colour under what is transparent."""
    return np.dstack([np.where(HIDDEN[..., None], 255, under).astype(np.uint8).repeat(3, axis=2), WHITE])


MASKS: dict[str, Any] = {
    "grey": WHITE,
    "grey that is not quite white": np.where(HIDDEN, 250, 4).astype(np.uint8),
    "colour": RGB,
    "strokes over black": layer(0),
    "strokes over white": layer(255),
    "grey strokes": Image.fromarray(layer(255)).convert("LA"),
    "labels": HIDDEN.astype(np.uint8),
    "labels of 64 bits": HIDDEN.astype(np.int64),
    "labels 1 and 2": HIDDEN.astype(np.uint8) + 1,
    "labels in colour": RGB // 255,
    "labels of 16 bits": Image.fromarray(HIDDEN.astype(np.uint16)),
    "white of 16 bits": Image.fromarray(HIDDEN.astype(np.uint16) * 65535),
    "bool": HIDDEN,
    "floats": HIDDEN.astype(np.float32),
    "tensor": torch.from_numpy(HIDDEN),
    "tensor of colours": torch.from_numpy(RGB).permute(2, 0, 1),
    "one bit": Image.fromarray(HIDDEN),
    "palette of colours": palette([0, 0, 0, 128, 0, 0]),
    "palette of several classes": palette([0, 0, 0, 128, 0, 0, 9, 9, 9], HIDDEN + (WHITE * (np.arange(9) > 5) > 0)),
    "palette that begins with white": palette([255, 255, 255, 0, 0, 0], ~HIDDEN),
    "picture": Picture(RGB),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_hides_what_its_tool_meant(name: str) -> None:
    assert np.array_equal(read_mask(MASKS[name]), HIDDEN)


@pytest.mark.parametrize("name", ["grey", "strokes over white", "labels"])
def test_a_mask_in_a_file_is_the_same(tmp_path: Path, name: str) -> None:
    Image.fromarray(MASKS[name]).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), HIDDEN)
    assert np.array_equal(read_mask(str(tmp_path / "mask.png")), HIDDEN)


def test_a_palette_with_transparency_goes_by_colour_on_black(tmp_path: Path) -> None:
    palette([255, 255, 255, 255, 255, 255]).save(tmp_path / "mask.png", transparency=b"\x00\xff")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), HIDDEN)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_mask_is_turned_as_its_exif_says(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(WHITE).save(tmp_path / "mask.png", exif=exif)
    expected = HIDDEN[::-1, ::-1] if orientation == 3 else np.rot90(HIDDEN, -1)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), expected)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((4, 5), 255, np.uint8), r"hides everything: it has the level 255 alone, and white is 255"),
        (np.zeros((4, 5), np.uint8), r"hides nothing: it has the level 0 alone"),
        (np.ones((4, 5), np.uint8), r"hides nothing: it has the level 1 alone"),
        (WHITE // 3, r"hides nothing: it has level 0 to 85, and white is 255\. Expected is white"),
        (np.dstack([RGB * 0, WHITE]), r"hides nothing: .* its transparent pixels taken as black"),
        (palette([0, 0, 0, 128, 0, 0], HIDDEN * 0 + 1), r"hides everything: it has a palette, .* the entry 1 alone"),
        (np.ones((4, 5), bool), "hides everything"),
        (np.full((4, 5), 300), "whole numbers from 0 to 255"),
        (np.full((4, 5), np.nan), "floats from 0 to 1"),
        (np.zeros((4, 5, 2), np.uint8), r"got \(4, 5, 2\)"),
        ("none.png", r"none\.png cannot be read"),
        (3, "Expected a path"),
    ],
)
def test_a_mask_that_means_nothing_is_refused(mask: Any, message: str) -> None:
    with pytest.raises(UnreadableError, match=message):
        read_mask(mask)


def test_a_mask_may_be_too_large() -> None:
    for mask in (WHITE, Image.fromarray(WHITE)):
        with pytest.raises(UnreadableError, match="54 pixels, and 50 are allowed"):
            read_mask(mask, max_pixels=50)
