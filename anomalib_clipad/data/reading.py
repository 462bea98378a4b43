"""Image and mask files as anomalib reads them, but by the rules of all doors, and named where they cannot be read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import local
from types import FunctionType
from typing import Any

import anomalib.data.utils.image as host
import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_dtype, to_image
from torchvision.tv_tensors import Mask

from anomalib_clipad.images import size
from anomalib_clipad.images.depth import UnknownDepthError
from anomalib_clipad.images.files import SIDEWAYS, orientation, shown_size, turn_left, turned
from anomalib_clipad.images.picture import UnreadableError, read


def _copy(function: Any) -> FunctionType:
    return FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)


host_read_image, host_read_mask = _copy(host.read_image), _copy(host.read_mask)
"""anomalib's functions, which stay what they are when the original ones are replaced."""


class UnreadableImageError(UnreadableError):
    """A file of the data set is no image, is damaged, too large, or of unknown depth."""


_last = local()  # of each thread, the image that was read last, while its mask is not


def read_image(path: str | Path, as_tensor: bool = False) -> torch.Tensor | np.ndarray:
    """Read an image as RGB in [0, 1], by the rules of all doors (docs/images.md).

    Args:
        path: Image file.
        as_tensor: Whether to return a tensor.

    Returns:
        Tensor (3, H, W), float32; or array (H, W, 3), float64.

    Raises:
        UnreadableImageError: If that is not possible; the message names the file.
    """
    with named(path):
        pixels = np.require(read(path, max_pixels=None).pixels, requirements="W")
    _last.image = path
    if as_tensor:
        return to_dtype(to_image(pixels), torch.float32, scale=True)
    return pixels / 255.0 if pixels.dtype == np.uint8 else pixels.astype(np.float64)


def read_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image file as it is shown; its pixels are not read.

    Raises:
        UnreadableImageError: As of ``read_image``.
    """
    with named(path):
        return size.read_size(path)


def read_mask(path: str | Path, as_tensor: bool = False) -> torch.Tensor | np.ndarray:
    """Read a mask; turned as the image that was read just before in this thread, if it was drawn on unturned pixels.

    Args:
        path: Mask file.
        as_tensor: Whether to return a tensor.

    Returns:
        Mask (H, W) of 0 and 1, uint8; or array (H, W), as the file has it.

    Raises:
        UnreadableImageError: If that is not possible; the message names the file.
    """
    image, _last.image = getattr(_last, "image", None), None
    with named(path, "mask"):
        with Path(path).open("rb") as file:  # by name, Pillow maps TIFF files and turns what it mapped wrongly
            mask = host_read_mask(file, as_tensor)
        turn, _ = _placed(path, image)
    if turn == 1:
        return mask
    return Mask(torch.from_numpy(turned(mask.numpy(), turn))) if as_tensor else turned(mask, turn)


def read_mask_size(path: str | Path, image: str | Path) -> tuple[int, int]:
    """Height and width of a mask as ``read_mask`` gives it after its image.

    Raises:
        UnreadableImageError: If that is not possible; the message names the file.
    """
    with named(path, "mask"):
        return _placed(path, image)[1]


def _placed(path: str | Path, image: str | Path | None) -> tuple[int, tuple[int, int]]:
    """How a mask is to be turned so that it lies on its image, as EXIF numbers it, and its size then.

    Its own orientation counts first, as a viewer shows it. Warns of what is assumed where only its image has one.
    """
    with Image.open(path) as file:
        own, left, size = orientation(file), turn_left(file), shown_size(file)
    if own != 1 or image is None:
        return left, size
    with named(image), Image.open(image) as file:
        turn, shown = orientation(file), shown_size(file)
    unturned = shown[::-1] if turn in SIDEWAYS else shown
    if turn == 1 or size not in {unturned, shown}:
        return 1, size
    assumed = "the unturned pixels, and turned like it" if size == unturned else "the turned image, and left as it is"
    msg = (
        f"The image {image} is turned as its EXIF orientation {turn} says. Its mask {path} is taken to be drawn on "
        f"{assumed}. Save both without an orientation to be sure."
    )
    warnings.warn(msg, UserWarning, stacklevel=4)
    return (turn, shown) if size == unturned else (1, size)


@contextmanager
def named(path: str | Path, kind: str = "image") -> Iterator[None]:
    """Name the file in whatever error reading it raises; Pillow's own messages often do not.

    Args:
        path: The file that is read.
        kind: What the file is.

    Raises:
        UnreadableImageError: In the place of any other error.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UnreadableError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # its own sentence, without the name
        advice = "Replace it, or take it out of the data set."
        if isinstance(error, UnknownDepthError):
            advice = "Save it anew in 8 bits or unsigned 16 bits, such as a PNG."
        elif isinstance(error, Image.DecompressionBombError):
            advice = "Scale it down or, if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS."
        msg = f"The {kind} {path} cannot be read ({error or type(error).__name__}). {advice}"
        raise UnreadableImageError(msg) from error
