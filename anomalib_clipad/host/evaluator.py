"""The paper's seven metrics as an anomalib evaluator."""

from __future__ import annotations

import logging
from typing import Any

import torch
from anomalib import metrics
from anomalib.metrics import AnomalibMetric, Evaluator
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_precision_recall_curve
from torchmetrics.utilities import dim_zero_cat

logger = logging.getLogger(__name__)
_IMAGE = ("pred_score", "gt_label")
_PIXEL = ("anomaly_map", "gt_mask")


class _TwoSided(Metric):
    """A metric that tells normal from abnormal: NaN where everything is one of them."""

    name: str
    target: list[Tensor]

    def compute(self) -> Tensor:
        targets = dim_zero_cat(self.target) if self.update_called else torch.empty(0)
        if len(targets) and targets.min() == targets.max():
            unit, _, kind = self.name.partition("_")
            if kind == "AUROC":  # the first metric of images and of pixels warns for all of them
                found = "abnormal" if targets.flatten()[0] else "normal"
                logger.warning("Every %s of the test set is %s: its %s metrics are undefined (NaN).", unit, found, unit)
            return torch.tensor(torch.nan)
        return super().compute()  # type: ignore[safe-super]  # of the metric it is mixed into


class _Curve(Metric):
    """All scores and targets, of which every threshold's precision and recall follow."""

    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("preds", default=[], dist_reduce_fx="cat")
        self.add_state("target", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.preds.append(preds.flatten())
        self.target.append(target.flatten().bool())

    def precision_and_recall(self) -> tuple[Tensor, Tensor]:
        targets = dim_zero_cat(self.target).int()
        return binary_precision_recall_curve(dim_zero_cat(self.preds), targets)[:2]


class _F1Max(_Curve):
    def compute(self) -> Tensor:
        precision, recall = self.precision_and_recall()
        return (2 * precision * recall / (precision + recall).clamp(min=1e-10)).max()


class _AveragePrecision(_Curve):
    def compute(self) -> Tensor:
        precision, recall = self.precision_and_recall()
        return -(recall.diff() * precision[:-1]).sum()


class AUROC(_TwoSided, metrics.AUROC):  # type: ignore[misc]  # anomalib mixes `update` in, too
    """Area under the ROC curve."""


class F1Max(_TwoSided, AnomalibMetric, _F1Max):  # type: ignore[misc]
    """Largest F1 score over all thresholds."""


class AP(_TwoSided, AnomalibMetric, _AveragePrecision):  # type: ignore[misc]
    """Average precision: the step-wise sum of precision over the gains in recall, not a trapezoid."""


class PRO(_TwoSided, metrics.AUPRO):  # type: ignore[misc]
    """Area under the per-region overlap up to a false-positive rate of 0.3, normalised to 1."""


class SevenMetrics(Evaluator):
    """AUROC, F1-max and AP of images and pixels, and PRO; pixel metrics only where there are masks."""

    test_metrics: nn.ModuleList

    def __init__(self) -> None:
        images: list[AnomalibMetric] = [metric(fields=_IMAGE, prefix="image_") for metric in (AUROC, F1Max, AP)]
        pixels: list[AnomalibMetric] = [
            metric(fields=_PIXEL, prefix="pixel_", strict=False) for metric in (AUROC, F1Max, AP, PRO)
        ]
        super().__init__(test_metrics=[*images, *pixels])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the metrics there is data for."""
        all_seven = self.test_metrics
        self.test_metrics = nn.ModuleList(m for m in all_seven if m.update_called or trainer.world_size > 1)
        try:
            super().on_test_epoch_end(trainer, pl_module)
        finally:
            self.test_metrics = all_seven
