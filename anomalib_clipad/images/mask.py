"""Masks of what is never looked at, as tools write them: strokes, labels, palettes, layers, arrays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.images.files import turn_left, turned, warn_of_frames, with_alpha
from anomalib_clipad.images.picture import (
    MAX_PIXELS,
    Picture,
    UnreadableError,
    as_array,
    check_size,
    explained,
    is_pillow,
    opened,
)

_LARGEST_LABEL = 31
"""Two values of which the larger is no more than this are labels, and not two shades."""


def read_mask(source: Any, max_pixels: int | None = MAX_PIXELS) -> NDArray[np.bool_]:
    """Read what is ignored.

    White is ignored, on black or on a transparent layer. Of two labels, such as 0 and 1, the larger is. Of a palette,
    all but entry 0 is, as in Pascal VOC, unless its colours are black and white.

    Args:
        source: A path, a Pillow image, a ``Picture``, an array (H, W), (H, W, 3) or (H, W, 4), or a tensor (H, W),
            (3, H, W) or (4, H, W).
        max_pixels: Larger masks are refused; with None, those that Pillow refuses.

    Returns:
        (H, W): True where it is ignored.

    Raises:
        UnreadableError: If it cannot be read, or if all or nothing would be ignored.
    """
    name: object = "The mask"
    if isinstance(source, (str, os.PathLike)):
        name = Path(source)
        with explained(name), opened(Path(source), max_pixels) as image:
            mask, found = _of_image(image, Path(source))
    elif is_pillow(source):
        with explained(name):
            check_size(source.width * source.height, max_pixels)
            mask, found = _of_image(source, None)
    else:
        array = source.pixels if isinstance(source, Picture) else as_array(source)
        mask, found = _of_array(array)
        check_size(mask.size, max_pixels)
    if mask.all() or not mask.any():
        msg = (
            f"{name} hides {'everything' if mask.any() else 'nothing'}: {found}. Expected is white on what to ignore "
            "and black or transparent elsewhere, the labels 0 and 1, or a palette whose entry 0 is looked at."
        )
        raise UnreadableError(msg)
    return mask


def _of_image(image: Any, path: Path | None) -> tuple[NDArray[np.bool_], str]:
    """What an image of Pillow hides, and what was found in it."""
    from anomalib_clipad.images.depth import grey_levels

    warn_of_frames(image, path)
    turn = turn_left(image)
    grey, _ = grey_levels(image, path or "image")
    if grey is not None:
        mask, found = _of_levels((2**16 - 1) * grey, 2**16 - 1)
    elif image.has_transparency_data:
        mask, found = _of_array(with_alpha(image))
    elif image.mode == "P":
        mask, found = _of_palette(image)
    elif image.mode in {"1", "L"}:
        mask, found = _of_array(np.asarray(image))
    else:
        mask, found = _of_array(np.asarray(image.convert("RGB")))
    return turned(mask, turn), found


def _of_palette(image: Any) -> tuple[NDArray[np.bool_], str]:
    """By colour where there is only black and white; else by entry."""
    entries = np.asarray(image)
    used = np.unique(entries)
    colours = np.frombuffer(image.convert("RGB").tobytes(), np.uint8).reshape(*entries.shape, 3)
    if {tuple(colour) for colour in np.unique(colours.reshape(-1, 3), axis=0).tolist()} <= {(0,) * 3, (255,) * 3}:
        return _of_levels(colours[..., 0], 255)
    return entries != 0, f"it has a palette, and uses of it {_some('entry', used)}"


def _of_array(array: NDArray[Any]) -> tuple[NDArray[np.bool_], str]:
    """What an array hides, and what was found in it."""
    if array.ndim not in {2, 3} or not array.size or (array.ndim == 3 and array.shape[2] not in {3, 4}):
        msg = f"Expected a mask of shape (H, W), (H, W, 3) or (H, W, 4), or a tensor (3, H, W); got {array.shape}."
        raise UnreadableError(msg)
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    white = 1 if np.issubdtype(array.dtype, np.floating) else 255
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= white):  # NaN is neither
        msg = f"Expected a mask of bool, of whole numbers from 0 to 255, or of floats from 0 to 1; got {low} to {high}."
        raise UnreadableError(msg)
    levels = array if array.ndim == 2 else array[..., :3].mean(axis=2)
    if array.ndim == 3 and array.shape[2] == 4:
        levels = levels * (array[..., 3] / white)
        mask, found = _of_levels(levels, white)
        return mask, f"{found}, its transparent pixels taken as black"
    return _of_levels(levels, white)


def _of_levels(levels: NDArray[Any], white: float) -> tuple[NDArray[np.bool_], str]:
    """What grey levels hide, and what was found in them."""
    values = np.unique(levels.round(3))
    if len(values) == 2 and 1 <= values[1] <= _LARGEST_LABEL and white > 1:
        return levels > values.mean(), f"it has the labels {values[0]:g} and {values[1]:g}"
    return levels > white / 2, f"it has {_some('level', values)}, and white is {white}"


def _some(one: str, values: NDArray[Any]) -> str:
    if len(values) == 1:
        return f"the {one} {values[0]:g} alone"
    return f"{one} {values[0]:g} to {values[-1]:g}"
