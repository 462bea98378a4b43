"""The paper's seven figures as an anomalib evaluator."""

from __future__ import annotations

from anomalib.metrics import AUPRO, AUROC, AnomalibMetric, Evaluator, F1Max
from anomalib.metrics.precision_recall_curve import BinaryPrecisionRecallCurve
from torch import Tensor

FIGURES = ("image_AUROC", "image_F1Max", "image_AP", "pixel_AUROC", "pixel_F1Max", "pixel_AP", "pixel_PRO")
_IMAGE = ("pred_score", "gt_label")
_PIXEL = ("anomaly_map", "gt_mask")


class _AveragePrecision(BinaryPrecisionRecallCurve):
    """Average precision: the step-wise sum of precision over the gains in recall, not a trapezoid."""

    def compute(self) -> Tensor:
        precision, recall, _ = super().compute()
        return -((recall[1:] - recall[:-1]) * precision[:-1]).sum()


class AP(AnomalibMetric, _AveragePrecision):
    """Average precision of a batch's fields."""


class PRO(AUPRO):
    """Area under the per-region overlap up to a false-positive rate of 0.3, normalised to 1."""


def seven_figures() -> Evaluator:
    """AUROC, F1-max and AP of images and pixels, and PRO; pixel figures only where there are masks."""
    metrics = [metric(fields=_IMAGE, prefix="image_") for metric in (AUROC, F1Max, AP)]
    metrics += [metric(fields=_PIXEL, prefix="pixel_", strict=False) for metric in (AUROC, F1Max, AP, PRO)]
    return Evaluator(test_metrics=metrics)
