"""Pillow's antialiased resize as two matrix products, and CLIP's normalisation: what every runtime can run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_A = -0.5  # of the bicubic kernel
_COEFFICIENT = 2**22  # Pillow's weights are multiples of its inverse
_UPPER = 2**11


class Standardize(nn.Module):
    """Less the mean, by the standard deviation, per channel.

    Args:
        mean: Mean per channel.
        std: Standard deviation per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in {"mean": mean, "std": std}.items():
            self.register_buffer(name, torch.tensor(list(values), dtype=torch.float32)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Standardise images (..., C, H, W)."""
        return (images - self.mean) / self.std


class MatrixResize(nn.Module):
    """Antialiased resize as two matrix products.

    Args:
        size: Height and width in pixels.
        interpolation: ``bicubic`` or ``bilinear``.
        whole_levels: Round to whole levels of 255 and clamp after each product, as Pillow does; otherwise it is
            torchvision's ``Resize`` of floats.

    Raises:
        ValueError: If the interpolation is another one.
    """

    def __init__(
        self,
        size: Sequence[int],
        interpolation: str = "bicubic",
        whole_levels: bool = True,
    ) -> None:
        super().__init__()
        if interpolation not in {"bicubic", "bilinear"}:
            msg = f"Only bicubic and bilinear resizing can be written as matrix products, not {interpolation}."
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


def resize_matrix(given: int, wanted: int, interpolation: str, device: torch.device | None = None) -> Tensor:
    """Weights (wanted, given), float64, of antialiased interpolation along one axis, as Pillow has them."""
    longer: Any = torch.sym_max(given, wanted)  # symbolic while exporting; whole numbers stay exact in a graph
    centres = (torch.arange(wanted, device=device, dtype=torch.float64) + 0.5) * given
    pixels = (torch.arange(given, device=device, dtype=torch.float64) + 0.5) * wanted
    # the other way round, (pixels - centres), OpenVINO rewrites sums of the pixels for ever where the size is fixed
    distance: Tensor = (centres[:, None] - pixels).abs() / longer
    weights = _cubic(distance) if interpolation == "bicubic" else (1 - distance).clamp(min=0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return (weights * _COEFFICIENT).round() / _COEFFICIENT


def _cubic(distance: Tensor) -> Tensor:
    near = ((_A + 2) * distance - (_A + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * _A - 4 * _A
    return torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
