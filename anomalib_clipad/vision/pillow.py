"""Pillow's antialiased resize of tensors, by Pillow where it can hold them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .matrix_resize import MatrixResize


def pillow_resize(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resize images (..., 3, H, W) with values in [0, 1] to a height and width, bicubically."""
    return _by_pillow(images, size) if _is_eight_bit_range(images) else MatrixResize(size)(images)


def _is_eight_bit_range(images: Tensor) -> bool:
    """Whether Pillow can hold the images: on the CPU, all values in [0, 1], and so no NaN."""
    if not images.is_cpu:
        return False
    low, high = images.aminmax()
    return bool((low >= 0) & (high <= 1))


def _by_pillow(images: Tensor, size: Sequence[int]) -> Tensor:
    """One pass at a time: from version 13 on, Pillow itself begins with the height where that shrinks more.

    One plane at a time, too: that is faster than to interleave the three channels for Pillow.
    """
    height, width = size
    planes = (255 * images.float()).round_().to(torch.uint8).flatten(0, -3).numpy()
    bicubic = Image.Resampling.BICUBIC
    across = (Image.fromarray(plane).resize((width, plane.shape[0]), bicubic) for plane in planes)
    resized = np.stack([np.asarray(plane.resize((width, height), bicubic)) for plane in across])
    return (torch.from_numpy(resized) / 255).reshape(*images.shape[:-2], height, width)
