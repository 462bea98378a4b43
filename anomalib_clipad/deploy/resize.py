"""Antialiased bicubic resize as two matrix products: torchvision's, in a form that every runtime can run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_A = -0.5


class MatrixResize(nn.Module):
    """Resize images of any size, as torchvision's ``Resize(BICUBIC, antialias=True)`` does, to one size.

    anomalib's own exports turn antialiasing off, and the model then sees other images (docs/algorithm.md, Resize).

    Args:
        size: Height and width in pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Resize images (B, 3, H, W) to (B, 3, *size)."""
        rows, columns = (
            cubic_matrix(images.shape[2 + axis], wanted, images.device) for axis, wanted in enumerate(self.size)
        )
        return rows @ images @ columns.T


def cubic_matrix(given: int, wanted: int, device: torch.device | None = None) -> Tensor:
    """Weights (wanted, given) of antialiased cubic interpolation along one axis; its rows add up to one."""
    scale = given / wanted
    stretch: Any = torch.sym_max(scale, 1.0)  # symbolic while exporting
    centres = (torch.arange(wanted, device=device, dtype=torch.float32) + 0.5) * scale
    pixels = torch.arange(given, device=device, dtype=torch.float32) + 0.5
    distance: Tensor = ((pixels - centres[:, None]) / stretch).abs()
    near = ((_A + 2) * distance - (_A + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * _A - 4 * _A
    zero = torch.zeros_like(distance)
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, zero))
    return weights / weights.sum(dim=1, keepdim=True)
