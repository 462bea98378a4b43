"""Position embeddings at another size than the model's own."""

from __future__ import annotations

from math import isqrt
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

Interpolation = Literal["bilinear", "bicubic"]


def resize_positions(positions: Tensor, grid: int, mode: Interpolation = "bicubic", antialias: bool = True) -> Tensor:
    """Position embeddings of another grid; that of the CLS token stays as it is.

    By default as open_clip does it. What was resized already is not what the model knows: start from the model's own.

    Args:
        positions: Those of the model's own square grid (1 + n * n, width).
        grid: Patches along an axis.
        mode: Kind of interpolation.
        antialias: As of torch's ``interpolate``; bicubic has other coefficients with it, also where the grid grows.

    Returns:
        Positions (1 + grid * grid, width), float32.
    """
    positions = positions.float()
    own = isqrt(len(positions) - 1)
    if own == grid:
        return positions
    patches = positions[1:].T.unflatten(1, (own, own))[None]  # (1, width, n, n)
    resized = interpolate(patches, (grid, grid), mode=mode, antialias=antialias, align_corners=False)
    return torch.cat([positions[:1], resized[0].flatten(1).T])
