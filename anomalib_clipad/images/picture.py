"""Whatever holds an image, as an RGB array; the way a viewer shows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Channels = Literal["rgb", "bgr"]
MAX_PIXELS = 89_000_000
"""Largest image by default, in pixels: just below where Pillow itself begins to warn."""
_ORIENTATION = 0x0112  # a tag of EXIF


class UnreadableError(ValueError):
    """A file, or what was given in its place, is no image that can be looked at."""


class Picture(NamedTuple):
    """An image that is ready to be looked at.

    Attributes:
        pixels: RGB (H, W, 3): uint8, or float32 in [0, 1] where it has more than 8 bits.
        path: Its file, if it came from one.
    """

    pixels: NDArray[Any]
    path: Path | None = None

    @property
    def shown(self) -> NDArray[np.uint8]:
        """In 8 bits."""
        if self.pixels.dtype == np.uint8:
            return self.pixels
        return (255 * self.pixels).round().astype(np.uint8)

    @property
    def levels(self) -> NDArray[np.float32]:
        """Values (3, H, W) in [0, 1]."""
        planes = np.ascontiguousarray(self.pixels.transpose(2, 0, 1))
        return planes / np.float32(255) if planes.dtype == np.uint8 else planes


def open_picture(source: Any, channels: Channels = "rgb", max_pixels: int = MAX_PIXELS) -> Picture:
    """Read whatever holds an image.

    Args:
        source: A path, a Pillow image, a numpy array (H, W, 3) or (H, W), or a torch tensor (3, H, W) or (H, W); arrays
            and tensors of uint8, or of floats in [0, 1].
        channels: Order of the channels of arrays; ``bgr`` is OpenCV's.
        max_pixels: Larger images are refused.

    Raises:
        UnreadableError: If that is not possible.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            return Picture(_read(path, max_pixels), path)
        except Exception as error:  # Pillow's plugins each raise their own
            msg = f"{path} cannot be read ({_short(error)})."
            raise UnreadableError(msg) from error
    if hasattr(source, "convert") and hasattr(source, "getexif"):
        return Picture(_decoded(source, None, max_pixels))
    if hasattr(source, "detach"):  # a tensor, of whatever device
        array = source.detach().cpu().numpy()
        return Picture(_as_rgb(array.transpose(1, 2, 0) if array.ndim == 3 else array, channels, max_pixels))
    if isinstance(source, np.ndarray):
        return Picture(_as_rgb(source, channels, max_pixels))
    msg = f"Expected a path, a Pillow image, a numpy array or a torch tensor; got {type(source).__name__}."
    raise UnreadableError(msg)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read(path: Path, max_pixels: int) -> NDArray[Any]:
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # the user's word counts, not Pillow's
    with path.open("rb") as file, Image.open(file) as image:
        return _decoded(image, path, max_pixels)


def _decoded(image: Any, path: Path | None, max_pixels: int) -> NDArray[Any]:
    from PIL import ImageOps

    from anomalib_clipad.images.depth import grey_levels

    _check_size(image.width * image.height, max_pixels)
    grey = grey_levels(image, path or "image")
    if grey is not None:
        turn = image.getexif().get(_ORIENTATION, 1)  # of a TIFF, Pillow has turned it by now
        return np.repeat(_turned(grey, turn)[..., None], 3, axis=2)
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _turned(grey: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    """A grey image as EXIF says it is to be shown; Pillow turns only what it holds in 8 bits."""
    if orientation in {5, 6, 7, 8}:
        grey = grey.T
    if orientation in {2, 3, 6, 7}:
        grey = grey[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        grey = grey[::-1]
    return np.ascontiguousarray(grey)


def _as_rgb(array: NDArray[Any], channels: Channels, max_pixels: int) -> NDArray[Any]:
    grey = array.ndim == 2
    if not grey and (array.ndim != 3 or array.shape[2] != 3):
        msg = f"Expected an image of shape (H, W, 3) or (H, W), or a tensor (3, H, W); got {array.shape}."
        raise UnreadableError(msg)
    if not array.size:
        msg = f"The image is empty: {array.shape}."
        raise UnreadableError(msg)
    _check_size(array.shape[0] * array.shape[1], max_pixels)
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating):
            msg = f"Expected uint8, or floats in [0, 1]; got {array.dtype}. Scale it to either."
            raise UnreadableError(msg)
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            msg = f"Expected floats in [0, 1]; got values from {low:g} to {high:g}. Divide by the value of white."
            raise UnreadableError(msg)
        array = array.astype(np.float32)
    if grey:
        return np.repeat(array[..., None], 3, axis=2)
    return np.ascontiguousarray(array[..., ::-1] if channels == "bgr" else array)


def _check_size(pixels: int, max_pixels: int) -> None:
    if pixels > max_pixels:
        msg = f"it has {pixels:,} pixels, and {max_pixels:,} are allowed; raise max_pixels if you trust it"
        raise UnreadableError(msg)
