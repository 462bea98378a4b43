"""The verdicts of ``NormalScores`` as tensor arithmetic that every runtime has."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from .conformal import ROUNDING, TIE
from .defect_scores import DefectScores
from .normal_scores import NormalScores


class Verdict(NamedTuple):
    """What is said of a batch.

    Attributes:
        p_value: Of each image (B,).
        pred_label: Whether the image is defective (B,).
        pred_mask: Whether the pixel belongs to a defective region (B, H, W).
        verdict: 0 good, 1 look, 2 defective (B,), int64; ``None`` without known defects and a miss rate.
    """

    p_value: Tensor
    pred_label: Tensor
    pred_mask: Tensor
    verdict: Tensor | None = None


class Certificate(nn.Module):
    """Verdicts by the scores of normal images, for a graph.

    Args:
        normal: The scores.

    Example:
        Of four normal images none scores as high as the second image, so its p-value is 1 / 5.

        >>> import numpy as np
        >>> scores = np.array([0.1, 0.2, 0.3, 0.4])
        >>> certificate = Certificate(NormalScores(scores, scores))
        >>> verdict = certificate(torch.tensor([0.35, 0.9]), torch.tensor([[[0.1]], [[0.5]]]), torch.tensor(0.2))
        >>> verdict.p_value, verdict.pred_label
        (tensor([0.4000, 0.2000]), tensor([False,  True]))
    """

    image_scores: Tensor
    region_scores: Tensor
    defect_scores: Tensor

    def __init__(self, normal: NormalScores) -> None:
        super().__init__()
        self.normal = normal
        for name in ("image_scores", "region_scores"):
            self.register_buffer(name, torch.from_numpy(getattr(normal, name)).sort(descending=True).values)
        if normal.three:
            defects = cast("DefectScores", normal.defects)
            self.register_buffer("defect_scores", torch.from_numpy(defects.image_scores))
            self.good = defects.rank

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
        rank = 1 + (self.image_scores + TIE >= score.unsqueeze(1)).sum(dim=1).float()
        lowest = torch.floor(false_alarm_rate * (count + 1) + ROUNDING)  # the last rank that is defective
        place = torch.arange(1, count + 1, device=score.device, dtype=torch.float32)
        never = torch.full_like(self.region_scores, torch.inf)
        peak = torch.where(place <= lowest, self.region_scores + TIE, never).amin(dim=0)
        defective = (rank <= lowest) | torch.isnan(score)
        verdict = None
        if self.normal.three:
            as_low = ~(self.defect_scores - TIE > score.unsqueeze(1))  # what is no number is above all of them
            good = 1 + as_low.sum(dim=1) <= self.good
            verdict = 1 + defective.long() - good.long()
        return Verdict(
            p_value=rank / (count + 1), pred_label=defective, pred_mask=~(anomaly_map <= peak), verdict=verdict
        )

    def judge(self, score: Tensor, anomaly_map: Tensor, false_alarm_rate: float) -> Verdict:
        """The same for a rate that is a Python number."""
        rate = torch.tensor(false_alarm_rate, dtype=torch.float32, device=score.device)
        return cast("Verdict", self(score, anomaly_map, rate))
