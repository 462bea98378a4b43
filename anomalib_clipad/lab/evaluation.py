"""The seven metrics of a model on a data module through anomalib's engine, by the paper's protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anomalib_clipad.host.evaluator import SevenMetrics
from anomalib_clipad.tools.evaluation import score

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule

    from anomalib_clipad import ClipAD
    from anomalib_clipad.metrics import Metrics


def evaluate(model: ClipAD, datamodule: AnomalibDataModule) -> Metrics:
    """The seven metrics of a model on one category: those of ``anomalib test``, in one pass instead of two.

    Args:
        model: A model for this category alone.
        datamodule: The category; its validation set has to be its test set, as by default.
    """
    metrics: list[Any] = list(SevenMetrics().test_metrics)
    for batch in score(model, datamodule, lambda _count: None):
        for metric in metrics:
            metric.update(batch)
    return {str(metric.name): float(metric.compute()) for metric in metrics}
