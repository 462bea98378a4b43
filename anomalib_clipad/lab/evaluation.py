"""The seven metrics of a model on a data module through anomalib's engine, by the paper's protocol."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from anomalib_clipad.host.evaluator import SevenMetrics
from anomalib_clipad.tools.evaluation import quiet

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule, ImageBatch
    from anomalib.engine import Engine
    from lightning import LightningModule, Trainer

    from anomalib_clipad import ClipAD
    from anomalib_clipad.metrics import Metrics


def evaluate(model: ClipAD, datamodule: AnomalibDataModule) -> Metrics:
    """The seven metrics of a model on one category: those of ``anomalib test``, in one pass instead of two.

    Args:
        model: A model for this category alone.
        datamodule: The category; its validation set has to be its test set, as by default.
    """
    metrics: list[Any] = list(SevenMetrics().test_metrics)
    for batch in score(model, datamodule):
        for metric in metrics:
            metric.update(batch)
    return {str(metric.name): float(metric.compute()) for metric in metrics}


def score(model: ClipAD, datamodule: AnomalibDataModule) -> list[ImageBatch]:
    """The validation images with scores and maps, normalised by their own ranges and thresholds, in one pass.

    Args:
        model: A model for this category alone.
        datamodule: The category. Where its validation set is the test set, the outcome is that of the paper's protocol.
    """
    from lightning.pytorch.callbacks import LambdaCallback

    batches: list[ImageBatch] = []

    def keep(trainer: Trainer, module: LightningModule, outputs: ImageBatch, *rest: Any) -> None:
        del trainer, module, rest
        batches.append(outputs)

    def post_process(trainer: Trainer, module: LightningModule) -> None:
        """As soon as thresholds are fitted, while images that judge each other are still known."""
        del trainer, module
        post_processor: Any = model.post_processor
        for batch in batches:
            post_processor.post_process_batch(batch)

    steps = LambdaCallback(on_validation_batch_end=keep, on_validation_end=post_process)
    with quiet_engine(callbacks=[steps]) as engine:
        engine.validate(model, datamodule=datamodule, verbose=False)
    return batches


@contextmanager
def quiet_engine(**options: Any) -> Iterator[Engine]:
    """An engine that prints nothing and whose files are gone afterwards, unless ``default_root_dir`` is given."""
    from anomalib.engine import Engine

    fixed = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "devices": 1}
    with quiet(), tempfile.TemporaryDirectory() as folder:
        yield Engine(**{"default_root_dir": folder, **fixed, **options})
