"""An image as Pillow holds it, as pixels: the first frame, turned as EXIF says, on white where it is transparent."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT, _ORIENTATION, _KIND = 256, 257, 274, 254  # tags of TIFF, and of EXIF
SIDEWAYS = frozenset({5, 6, 7, 8})
"""Orientations whose height and width change places."""


def decoded(image: Any, path: Path | None) -> tuple[NDArray[Any], str | None]:
    """The pixels of an image, and what there is to say of them.

    Args:
        image: As ``Image.open`` gives it, its pixels best not loaded yet.
        path: Its file, to be named in a warning.

    Returns:
        RGB (H, W, 3): uint8, or float32 in [0, 1] where it is grey of more than 8 bits. And a remark, if there is one.

    Raises:
        ValueError: If it is empty, or only a small copy of itself.
        Exception: What Pillow's plugins raise, each its own.
    """
    from anomalib_clipad.images.depth import grey_levels

    if not (image.width and image.height):
        msg = f"it is empty: {image.width} x {image.height} pixels"
        raise ValueError(msg)
    if image.format == "TIFF" and image.tag_v2.get(_KIND, 0) & 1:
        msg = "its first page is a small copy, as in a camera's raw file; save the photograph as TIFF or PNG"
        raise ValueError(msg)
    warn_of_frames(image, path)
    key, turn = _key(image), turn_left(image)
    grey, remark = grey_levels(image, path or "image")
    if grey is not None:
        if key is not None:
            grey[grey == np.float32(key) / np.float32(2**16 - 1)] = 1
        pixels = np.repeat(grey[..., None], 3, axis=2)
    elif key is not None:
        pixels = np.array(image.convert("RGB"))
        pixels[(pixels == key).all(axis=2)] = 255
    elif image.has_transparency_data:
        pixels = on_white(with_alpha(image))
    else:
        pixels = np.asarray(image.convert("RGB"))
    return turned(pixels, turn), remark


def warn_of_frames(image: Any, path: Path | None) -> None:
    """Warn that one frame of several is looked at; the others of an MPO are the same photograph, smaller."""
    if getattr(image, "is_animated", False) and image.format != "MPO":
        name = path or getattr(image, "filename", None) or "An image"
        msg = f"{name} has {image.n_frames} frames or pages; only number {image.tell() + 1} is looked at."
        warnings.warn(msg, UserWarning, stacklevel=2)


def orientation(image: Any) -> int:
    """How EXIF in the header of a file says that it is to be turned, 1 to 8.

    Pillow's ``getexif`` also believes XMP, text and what follows the pixels, which browsers do not.
    """
    from PIL import Image

    if image.format == "TIFF":
        value = image.tag_v2.get(_ORIENTATION, 1)
    elif image.format is None and "exif" not in image.info:  # made in memory
        value = image.getexif().get(_ORIENTATION, 1)
    else:
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        value = exif.get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def turn_left(image: Any) -> int:
    """The orientation that its pixels, once loaded, are still to be turned by; Pillow turns those of a TIFF."""
    return 1 if image.format == "TIFF" else orientation(image)


def shown_size(image: Any) -> tuple[int, int]:
    """Height and width when it is turned; its pixels are not loaded."""
    width, height = image.size
    if image.format == "TIFF":  # newer versions of Pillow have turned the size by now
        width, height = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
    return (width, height) if orientation(image) in SIDEWAYS else (height, width)


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels (H, W) or (H, W, channels) as EXIF says that they are to be shown."""
    if orientation == 1:
        return pixels
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA (H, W, 4) on white, in whole levels as browsers draw it: what is transparent hides no colour."""
    colour, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:].astype(np.uint16)
    return (((colour * alpha + 127) // 255) + (255 - alpha)).astype(np.uint8)


def with_alpha(image: Any) -> NDArray[np.uint8]:
    """Any image that has transparency, as RGBA (H, W, 4)."""
    return np.asarray((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))


def _key(image: Any) -> Any:
    """The one level or colour that a PNG without alpha shows as transparent, on the scale of its pixels."""
    key = image.info.get("transparency")
    if key is None or image.mode not in {"1", "L", "RGB", "I;16"}:
        return None
    raw_modes = [str(tile[3][0] if isinstance(tile[3], tuple) else tile[3]) for tile in getattr(image, "tile", [])]
    if image.mode == "RGB":
        if any(";16" in raw_mode for raw_mode in raw_modes):
            msg = "one of its 16-bit colours is transparent, and Pillow reads 8 bits of them; save it with 8 bits"
            raise ValueError(msg)
        return key
    scale = {"1": 255, "L;2": 85, "L;4": 17}.get(raw_modes[0] if raw_modes else "", 1)
    return key * scale
