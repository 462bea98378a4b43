"""Testing a model on a data module through anomalib's engine, by the paper's protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anomalib_clipad.tools.evaluation import quiet_engine

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule

    from anomalib_clipad import ClipAD
    from anomalib_clipad.metrics import Metrics


def evaluate(model: ClipAD, datamodule: AnomalibDataModule) -> Metrics:
    """The seven metrics of a model on one category.

    The validation set decides the protocol: if it is the test set, as by default, the paper's.
    """
    with quiet_engine() as engine:
        (metrics,) = engine.test(model=model, datamodule=datamodule, verbose=False)
    return {name: float(value) for name, value in metrics.items()}
