"""Score fusion and strictly monotone normalisation, as pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

_STEEPNESS = 4.0
"""At the threshold plus (minus) one fitted range the normalised value is 0.9 (0.1)."""


def min_max(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(values - low) / (high - low); where the range is empty, values - low."""
    return (values - low) / _span(low, high)


def normalize_monotone(values: Tensor, low: Tensor, high: Tensor, threshold: Tensor) -> Tensor:
    """Map values to (0, 1) with the threshold at 0.5, strictly increasing inside and outside [low, high].

    The map is z / (1 + |z|) of the distance from the threshold in fitted ranges. Unlike clamping it ties nothing,
    so that AUROC, AP, F1-max and PRO stay those of the values themselves.
    """
    distance = _STEEPNESS * (values - threshold) / _span(low, high)
    return 0.5 + 0.5 * distance / (1 + distance.abs())


def _span(low: Tensor, high: Tensor) -> Tensor:
    return torch.where(high > low, high - low, torch.ones_like(low))
