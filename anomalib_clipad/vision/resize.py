"""Pillow's antialiased resize: as a transform, and as two matrix products that every runtime can run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode, Resize

_A = -0.5  # of the bicubic kernel
_COEFFICIENT = 2**22  # Pillow's weights are multiples of its inverse
_UPPER = 2**11


class PillowResize(Resize):
    """Bicubic resize of images and bilinear resize of masks to one size, as the reference does it with Pillow.

    Pillow resizes 8-bit images, the width before the height, and rounds to whole levels and clamps after each of both
    (docs/algorithm.md, Resize). Images of more depth come out 8 bits deep too: CLIP was trained on such. A mask is 1
    where it is above 0.5.

    Args:
        size: Height and width in pixels.

    Example:
        >>> PillowResize((2, 2))(torch.rand(5, 3, 7, 9)).shape
        torch.Size([5, 3, 2, 2])
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size, InterpolationMode.BICUBIC, antialias=True)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize images (..., 3, H, W) with values in [0, 1], and masks (..., H, W) of 0 and 1."""
        if isinstance(inpt, tv_tensors.Mask):
            mask = MatrixResize(self.size, InterpolationMode.BILINEAR)(inpt.as_subclass(Tensor)) > 0.5
            return tv_tensors.wrap(mask.to(inpt.dtype), like=inpt)
        if not isinstance(inpt, Tensor) or not inpt.is_floating_point():
            return super().transform(inpt, params)
        images = inpt.as_subclass(Tensor)
        resized = _by_pillow(images, self.size) if _is_eight_bit_range(images) else MatrixResize(self.size)(images)
        return tv_tensors.wrap(resized, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else resized


def _is_eight_bit_range(images: Tensor) -> bool:
    """Whether Pillow can hold the images: on the CPU, all values in [0, 1], and so no NaN."""
    if not images.is_cpu:
        return False
    low, high = images.aminmax()
    return bool((low >= 0) & (high <= 1))


def _by_pillow(images: Tensor, size: list[int]) -> Tensor:
    """One pass at a time: from version 13 on, Pillow itself begins with the height where that shrinks more.

    One plane at a time, too: that is faster than to interleave the three channels for Pillow.
    """
    height, width = size
    planes = (255 * images.float()).round_().to(torch.uint8).flatten(0, -3).numpy()
    bicubic = Image.Resampling.BICUBIC
    across = (Image.fromarray(plane).resize((width, plane.shape[0]), bicubic) for plane in planes)
    resized = np.stack([np.asarray(plane.resize((width, height), bicubic)) for plane in across])
    return (torch.from_numpy(resized) / 255).reshape(*images.shape[:-2], height, width)


class MatrixResize(nn.Module):
    """Antialiased resize as two matrix products.

    Args:
        size: Height and width in pixels.
        interpolation: Bicubic or bilinear.
        whole_levels: Round to whole levels of 255 and clamp after each product, as Pillow does; otherwise it is
            torchvision's ``Resize`` of floats.

    Raises:
        ValueError: If the interpolation is another one.
    """

    def __init__(
        self,
        size: list[int],
        interpolation: InterpolationMode = InterpolationMode.BICUBIC,
        whole_levels: bool = True,
    ) -> None:
        super().__init__()
        if interpolation not in {InterpolationMode.BICUBIC, InterpolationMode.BILINEAR}:
            msg = f"Only bicubic and bilinear resizing can be written as matrix products, not {interpolation.value}."
            raise ValueError(msg)
        self.size, self.interpolation, self.whole_levels = tuple(size), interpolation, whole_levels

    def forward(self, images: Tensor) -> Tensor:
        """Resize images (..., H, W) with values in [0, 1] to (..., *size)."""
        rows, columns = (
            resize_matrix(images.shape[axis], wanted, self.interpolation, images.device)
            for axis, wanted in zip((-2, -1), self.size, strict=True)
        )
        if not self.whole_levels:
            return rows.float() @ images.float() @ columns.float().T
        levels = (255 * images.float()).round()
        across = _whole_levels(levels, columns)
        return _whole_levels(across.mT, rows).mT / 255


def _whole_levels(levels: Tensor, weights: Tensor) -> Tensor:
    """Whole levels (..., wanted) of whole levels (..., given), rounded half up and clamped.

    Many sums lie half-way between two levels, so they have to be exact: float32 is, for the weights' upper and lower
    bits apart, whose products have at most 24 bits.
    """
    upper = (weights * _UPPER).round() / _UPPER
    coarse = levels @ upper.float().T + 0.5
    fine = levels @ (weights - upper).float().T
    whole = coarse.floor()
    return (whole + (coarse - whole + fine).floor()).clamp(0, 255)


def resize_matrix(
    given: int, wanted: int, interpolation: InterpolationMode, device: torch.device | None = None
) -> Tensor:
    """Weights (wanted, given), float64, of antialiased interpolation along one axis, as Pillow has them."""
    longer: Any = torch.sym_max(given, wanted)  # symbolic while exporting; whole numbers stay exact in a graph
    centres = (torch.arange(wanted, device=device, dtype=torch.float64) + 0.5) * given
    pixels = (torch.arange(given, device=device, dtype=torch.float64) + 0.5) * wanted
    distance: Tensor = (pixels - centres[:, None]).abs() / longer
    weights = _cubic(distance) if interpolation is InterpolationMode.BICUBIC else (1 - distance).clamp(min=0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return (weights * _COEFFICIENT).round() / _COEFFICIENT


def _cubic(distance: Tensor) -> Tensor:
    near = ((_A + 2) * distance - (_A + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * _A - 4 * _A
    return torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
