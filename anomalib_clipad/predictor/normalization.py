"""Score fusion, and normalisation that keeps the order of values, as pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

_STEEPNESS = 4.0
"""At the threshold plus (minus) one fitted range the normalised value is 0.9 (0.1)."""


def min_max(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(values - low) / (high - low); where the range is empty, values - low.

    Example:
        The range goes to 0 and 1, and nothing is clamped.

        >>> min_max(torch.tensor([2.0, 3.0, 4.0, 6.0]), torch.tensor(2.0), torch.tensor(4.0))
        tensor([0.0000, 0.5000, 1.0000, 2.0000])
    """
    return (values - low) / _span(low, high)


def normalize_monotone(values: Tensor, low: Tensor, high: Tensor, threshold: Tensor) -> Tensor:
    """Map values to (0, 1) with the threshold at 0.5, in the same order, inside and outside [low, high].

    The map is z / (1 + |z|) of the distance z from the threshold, in quarters of the fitted range. Clamping would make
    all values outside the range equal; this function does not. But float32 has few numbers near 0.5 and near 1, so
    rounding merges close neighbours: of the distinct values of a raw map 10 to 47 % become equal to another one, and a
    few neighbours swap. AUROC, AP, F1-max and PRO stay those of the values themselves, to within 1e-5.

    Example:
        The range is [0, 2] and the threshold 0.5. One range above the threshold is 0.9, one below is 0.1.

        >>> low, high, threshold = torch.tensor(0.0), torch.tensor(2.0), torch.tensor(0.5)
        >>> normalize_monotone(torch.tensor([-1.5, 0.5, 2.5, 100.0]), low, high, threshold)
        tensor([0.1000, 0.5000, 0.9000, 0.9975])
    """
    distance = _STEEPNESS * (values - threshold) / _span(low, high)
    return 0.5 + 0.5 * distance / (1 + distance.abs())


def _span(low: Tensor, high: Tensor) -> Tensor:
    return torch.where(high > low, high - low, torch.ones_like(low))
