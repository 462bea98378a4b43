"""Losses of SDP+ (paper section 3.4): focal and dice, per layer."""

from __future__ import annotations

import torch
from torch import Tensor

_GAMMA = 2
_SMOOTH = 1e-5


def focal_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """Focal loss on the softmax pair, mean over all pixels: a scalar.

    Args:
        probability: Probability of the abnormal state (B, H, W).
        mask: 1 where there is a defect, else 0 (B, H, W).
    """
    abnormal = mask.clamp(_SMOOTH, 1 - _SMOOTH)
    normal = (1 - mask).clamp(_SMOOTH, 1 - _SMOOTH)
    hit = normal * (1 - probability) + abnormal * probability + _SMOOTH
    return -((1 - hit) ** _GAMMA * hit.log()).mean()


def dice_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """One less the dice coefficient of the abnormal state, mean over images: a scalar; arguments as above."""
    overlap = (probability * mask).sum(dim=(1, 2))
    return 1 - ((2 * overlap + 1) / (probability.sum(dim=(1, 2)) + mask.sum(dim=(1, 2)) + 1)).mean()


def adapter_losses(probabilities: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Both losses of every layer, by name; their sum is what SDP+ is trained on.

    Args:
        probabilities: Probabilities of each layer (4, B, H, W).
        mask: Masks (B, H, W), binarised here at 0.5.
    """
    target = (mask > 0.5).to(probabilities.dtype)
    terms = {"focal": focal_loss, "dice": dice_loss}
    return {
        f"{term}_{layer}": loss(probability, target)
        for layer, probability in enumerate(probabilities, 1)
        for term, loss in terms.items()
    }


def total(losses: dict[str, Tensor]) -> Tensor:
    """Sum of named losses."""
    return torch.stack(list(losses.values())).sum()
