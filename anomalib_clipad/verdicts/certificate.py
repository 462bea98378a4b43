"""Scores of normal images, and the verdicts that follow from them, as tensor arithmetic that every runtime has."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from .conformal import ROUNDING


class Verdict(NamedTuple):
    """What is said of a batch.

    Attributes:
        p_value: Of each image (B,).
        pred_label: Whether the image is defective (B,).
        pred_mask: Whether the pixel belongs to a defective region (B, H, W).
    """

    p_value: Tensor
    pred_label: Tensor
    pred_mask: Tensor


class Certificate(nn.Module):
    """Verdicts by the scores of normal images.

    An image is defective where its p-value is at most the rate; a region where that of its peak among the map maxima of
    the normal images is, so that a normal image shows any region at that rate at most. What is not a number is
    defective.

    Args:
        image_scores: Image scores of n normal images (n,), in any order.
        region_scores: Maxima of their maps (n,).

    Raises:
        ValueError: If there are none, or one is not a number.

    Example:
        Of four normal images none scores as high as the second image, so its p-value is 1 / 5.

        >>> certificate = Certificate(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.1, 0.2, 0.3, 0.4]))
        >>> verdict = certificate(torch.tensor([0.35, 0.9]), torch.tensor([[[0.1]], [[0.5]]]), torch.tensor(0.2))
        >>> verdict.p_value, verdict.pred_label
        (tensor([0.4000, 0.2000]), tensor([False,  True]))
    """

    image_scores: Tensor
    region_scores: Tensor

    def __init__(self, image_scores: Tensor, region_scores: Tensor) -> None:
        super().__init__()
        for name, scores in {"image_scores": image_scores, "region_scores": region_scores}.items():
            if scores.ndim != 1 or not len(scores) or scores.shape != image_scores.shape:
                msg = f"Expected {name} of shape (n,), one for each calibration image; got {tuple(scores.shape)}."
                raise ValueError(msg)
            if not scores.isfinite().all():
                msg = f"{int((~scores.isfinite()).sum())} of the {name} are no numbers (NaN or infinite)."
                raise ValueError(msg)
            in_order = scores.detach().clone().float().sort(descending=True).values
            self.register_buffer(name, in_order)

    def __len__(self) -> int:
        return len(self.image_scores)

    def forward(self, score: Tensor, anomaly_map: Tensor, false_alarm_rate: Tensor) -> Verdict:
        """Judge images.

        Args:
            score: Image scores (B,).
            anomaly_map: Maps (B, H, W).
            false_alarm_rate: A scalar; below 1 / (n + 1) nothing but NaN is defective.
        """
        count = len(self.image_scores)
        rank = 1 + (self.image_scores >= score.unsqueeze(1)).sum(dim=1).float()
        lowest = torch.floor(false_alarm_rate * (count + 1) + ROUNDING)  # the last rank that is defective
        place = torch.arange(1, count + 1, device=score.device, dtype=torch.float32)
        never = torch.full_like(self.region_scores, torch.inf)
        peak = torch.where(place <= lowest, self.region_scores, never).amin(dim=0)
        return Verdict(
            p_value=rank / (count + 1),
            pred_label=(rank <= lowest) | torch.isnan(score),
            pred_mask=~(anomaly_map <= peak),
        )

    def judge(self, score: Tensor, anomaly_map: Tensor, false_alarm_rate: float) -> Verdict:
        """The same for a rate that is a Python number."""
        rate = torch.tensor(false_alarm_rate, dtype=torch.float32, device=score.device)
        return cast("Verdict", self(score, anomaly_map, rate))
