"""Image and mask files as anomalib reads them, but in full depth, and named where they cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any

import anomalib.data.utils.image as host
import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import to_image

from anomalib_clipad.images.depth import UnknownDepthError, grey_levels


def _copy(function: Any) -> FunctionType:
    return FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)


host_read_image, host_read_mask = _copy(host.read_image), _copy(host.read_mask)
"""anomalib's functions, which stay what they are when the original ones are replaced."""


class UnreadableImageError(ValueError):
    """A file of the data set is no image, is damaged, too large, or of unknown depth."""


def read_image(path: str | Path, as_tensor: bool = False) -> torch.Tensor | np.ndarray:
    """Read an image as RGB in [0, 1].

    Args:
        path: Image file. Grey ones may have 8 to 16 bits, or floats from 0 to 1.
        as_tensor: Whether to return a tensor.

    Returns:
        Tensor (3, H, W), float32; or array (H, W, 3), float64.

    Raises:
        UnreadableImageError: If that is not possible; the message names the file.
    """
    with named(path):
        with Image.open(path) as image:
            grey = grey_levels(image, path)
        if grey is None:
            return host_read_image(path, as_tensor)
        pixels = np.repeat(grey[..., None], 3, axis=2)
        return to_image(pixels) if as_tensor else pixels.astype(np.float64)


def read_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image file, whose pixels are not read.

    Raises:
        UnreadableImageError: As of ``read_image``.
    """
    with named(path), Image.open(path) as image:
        return image.height, image.width


def read_mask(path: str | Path, as_tensor: bool = False) -> torch.Tensor | np.ndarray:
    """Read a mask.

    Args:
        path: Mask file.
        as_tensor: Whether to return a tensor.

    Returns:
        Mask (H, W) of 0 and 1, uint8; or array (H, W), as the file has it.

    Raises:
        UnreadableImageError: If that is not possible; the message names the file.
    """
    with named(path, "mask"):
        return host_read_mask(path, as_tensor)


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
        advice = "Replace it, or take it out of the data set."
        if isinstance(error, UnknownDepthError):
            advice = "Save it anew in 8 bits or unsigned 16 bits, such as a PNG."
        elif isinstance(error, Image.DecompressionBombError):
            advice = "Scale it down or, if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS."
        msg = f"The {kind} {path} cannot be read ({error or type(error).__name__}). {advice}"
        raise UnreadableImageError(msg) from error
