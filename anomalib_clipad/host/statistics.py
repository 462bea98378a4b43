"""What belongs to one class or to one run: fitted statistics, metrics, labels."""

from __future__ import annotations

from typing import TypeVar

from anomalib.data import Batch
from torch import nan, nn
from torchmetrics import Metric

T = TypeVar("T")


def required(value: T | None, name: str) -> T:
    """A field of a batch that has to be there.

    Raises:
        ValueError: If it is not.
    """
    if value is None:
        msg = f"The batch has no {name}."
        raise ValueError(msg)
    return value


def drop_statistics(post_processor: nn.Module) -> bool:
    """Forget the thresholds and ranges of a post-processor, which belong to one class; whether there were any."""
    buffers = list(post_processor.buffers(recurse=False))
    fitted = any(not buffer.isnan().all() for buffer in buffers)
    for buffer in buffers:
        buffer.fill_(nan)
    return fitted


def reset_metrics(module: nn.Module) -> None:
    """Empty all metrics of a module: a run that was stopped leaves images in them."""
    for part in module.modules():
        if isinstance(part, Metric):
            part.reset()


def require_labels(batch: Batch) -> None:
    """Check that a batch can be evaluated.

    Raises:
        ValueError: If it has no labels.
    """
    if batch.gt_label is None:
        msg = (
            "validate and test compare predictions with labels, and this batch has none (gt_label is missing). Use "
            "predict for images without labels, or a data module that has them."
        )
        raise ValueError(msg)
