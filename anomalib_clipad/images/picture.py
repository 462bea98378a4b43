"""Whatever holds an image, as an RGB array; the way a viewer shows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.checks import in_a_line
from anomalib_clipad.images.files import decoded, on_white
from anomalib_clipad.images.formats import open_image

Channels = Literal["rgb", "bgr"]
MAX_PIXELS = 89_000_000
"""Largest image by default, in pixels: just below where Pillow itself begins to warn."""
_WHOLE = 0.1  # of a level: how far half precision moves one


class UnreadableError(ValueError):
    """A file, or what was given in its place, is no image that can be looked at.

    Attributes:
        path: What it is called, where the error itself is passed on in place of the image.
    """

    path: Path | None = None


class Picture(NamedTuple):
    """An image that is ready to be looked at.

    Attributes:
        pixels: RGB (H, W, 3): uint8, or float32 in [0, 1] where it has more than 8 bits.
        path: Its file, if it came from one.
        remark: What there is to say of it, such as that it may be too dark.
    """

    pixels: NDArray[Any]
    path: Path | None = None
    remark: str | None = None

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


def read(source: Any, channels: Channels = "rgb", max_pixels: int | None = MAX_PIXELS) -> Picture:
    """Read whatever holds an image, as a viewer shows it: docs/images.md has the rules.

    Args:
        source: A path, a Pillow image, a numpy array (H, W), (H, W, 3) or (H, W, 4), or a torch tensor (H, W),
            (3, H, W) or (4, H, W); arrays and tensors of uint8, of floats in [0, 1], or of bool. A fourth channel is
            transparency. An ``UnreadableError`` in place of an image is raised.
        channels: Order of the channels of arrays; ``bgr`` is OpenCV's.
        max_pixels: Larger images are refused; with None, those that Pillow refuses.

    Raises:
        UnreadableError: If that is not possible.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, UnreadableError):
        raise source
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with explained(path):
            pixels, remark = _of_file(path, max_pixels)
            return Picture(pixels, path, remark)
    if is_pillow(source):
        with explained(getattr(source, "filename", None) or "The image"):
            check_size(source.width * source.height, max_pixels)
            pixels, remark = decoded(source, None)
            return Picture(pixels, None, remark)
    return Picture(_as_rgb(as_array(source), channels, max_pixels))


@contextmanager
def opened(path: Path, max_pixels: int | None) -> Iterator[Any]:
    """An image file as Pillow opens it, of no more pixels than are allowed."""
    from PIL import Image

    if max_pixels is not None and Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels  # the user's word counts, not Pillow's
    if path.is_symlink() and not path.exists():
        msg = f"it is a link to {path.readlink()}, which is not there"
        raise FileNotFoundError(msg)
    with path.open("rb") as file, open_image(file) as image:
        check_size(image.width * image.height, max_pixels)
        yield image


@contextmanager
def explained(name: object) -> Iterator[None]:
    """Name the image in whatever error reading it raises: Pillow's plugins each raise their own.

    Raises:
        UnreadableError: In the place of any other error, which is its cause.
    """
    try:
        yield
    except Exception as error:
        reason = in_a_line(error).rstrip(".") or type(error).__name__
        msg = f"{name} cannot be read ({reason})."
        raise UnreadableError(msg) from error


def is_pillow(source: Any) -> bool:
    """Whether it is an image of Pillow, which is not imported for that."""
    return hasattr(source, "convert") and hasattr(source, "getexif")


def as_array(source: Any) -> NDArray[Any]:
    """An array, or a tensor as one, of any device and precision; its channels last.

    Raises:
        UnreadableError: If it is neither.
    """
    if isinstance(source, np.ndarray):
        return source
    if not hasattr(source, "detach"):
        msg = f"Expected a path, a Pillow image, a numpy array or a torch tensor; got {type(source).__name__}."
        raise UnreadableError(msg)
    try:
        tensor = source.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":  # numpy has none
            tensor = tensor.float()
        array: NDArray[Any] = tensor.numpy()
    except Exception as error:  # of a quantised, sparse or meta tensor each its own
        layout = f"{source.dtype}, {source.layout}, on {source.device}"
        msg = f"A tensor of {layout} holds no plain numbers to look at; make it a dense one of uint8 or float32."
        raise UnreadableError(msg) from error
    return array.transpose(1, 2, 0) if array.ndim == 3 else array


def check_size(pixels: int, max_pixels: int | None) -> None:
    """Refuse what is too large.

    Raises:
        UnreadableError: If there are more pixels than are allowed.
    """
    if max_pixels is not None and pixels > max_pixels:
        msg = f"it has {pixels:,} pixels, and {max_pixels:,} are allowed; raise max_pixels if you trust it"
        raise UnreadableError(msg)


def _of_file(path: Path, max_pixels: int | None) -> tuple[NDArray[Any], str | None]:
    with opened(path, max_pixels) as image:
        return decoded(image, path)


def _as_rgb(array: NDArray[Any], channels: Channels, max_pixels: int | None) -> NDArray[Any]:
    grey = array.ndim == 2
    if not grey and (array.ndim != 3 or array.shape[2] not in {3, 4}):
        msg = f"Expected an image of shape (H, W, 3), (H, W, 4) or (H, W), or a tensor (3, H, W); got {array.shape}."
        raise UnreadableError(msg)
    if not array.size:
        msg = f"The image is empty: {array.shape}."
        raise UnreadableError(msg)
    check_size(array.shape[0] * array.shape[1], max_pixels)
    array = _in_range(array)
    if grey:
        return np.repeat(array[..., None], 3, axis=2)
    if channels == "bgr":
        array = array[..., [2, 1, 0, *range(3, array.shape[2])]]
    if array.shape[2] == 3:
        return np.ascontiguousarray(array)
    if array.dtype == np.uint8:
        return on_white(array)
    levels = 255 * array
    whole = levels.round()
    if np.abs(levels - whole).max() < _WHOLE:  # what a file of 8 bits would hold, and is composited as
        return on_white(whole.astype(np.uint8))
    return array[..., :3] * array[..., 3:] + (1 - array[..., 3:])


def _in_range(array: NDArray[Any]) -> NDArray[Any]:
    """The values as uint8, or as float32 in [0, 1]."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array * np.uint8(255)
    if not np.issubdtype(array.dtype, np.floating):
        msg = f"Expected uint8, bool, or floats in [0, 1]; got {array.dtype}. Scale it to one of them."
        raise UnreadableError(msg)
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        msg = f"Expected floats in [0, 1]; got values from {low:g} to {high:g}. Divide by the value of white."
        raise UnreadableError(msg)
    return array.astype(np.float32)
