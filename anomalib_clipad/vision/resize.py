"""Pillow's antialiased resize as torchvision's transform."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode, Resize

from .matrix_resize import MatrixResize
from .pillow import pillow_resize


class PillowResize(Resize):
    """Bicubic resize of images and bilinear resize of masks to one size, as the reference does it with Pillow.

    Pillow resizes 8-bit images, the width before the height, and rounds to whole levels and clamps after each of both
    (docs/algorithm.md, Resize). Images of more depth come out 8 bits deep too: CLIP was trained on such. A mask is 1
    where it is above 0.5.

    Args:
        size: Height and width in pixels.

    Example:
        >>> import torch
        >>> PillowResize((2, 2))(torch.rand(5, 3, 7, 9)).shape
        torch.Size([5, 3, 2, 2])
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size, InterpolationMode.BICUBIC, antialias=True)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize images (..., 3, H, W) with values in [0, 1], and masks (..., H, W) of 0 and 1."""
        if isinstance(inpt, tv_tensors.Mask):
            mask = MatrixResize(self.size, "bilinear")(inpt.as_subclass(Tensor)) > 0.5
            return tv_tensors.wrap(mask.to(inpt.dtype), like=inpt)
        if not isinstance(inpt, Tensor) or not inpt.is_floating_point():
            return super().transform(inpt, params)
        images = inpt.as_subclass(Tensor)
        resized = pillow_resize(images, self.size)
        return tv_tensors.wrap(resized, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else resized
