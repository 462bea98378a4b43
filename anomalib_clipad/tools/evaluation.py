"""Scores of a data module through anomalib's engine, by the paper's protocol, and tables of metrics."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .tables import markdown_table

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule, ImageBatch
    from anomalib.engine import Engine
    from lightning.pytorch import LightningModule, Trainer

    from anomalib_clipad import ClipAD
    from anomalib_clipad.metrics import Metrics


def score(model: ClipAD, datamodule: AnomalibDataModule, advance: Callable[[int], Any]) -> list[ImageBatch]:
    """The validation images with scores and maps, normalised by their own ranges and thresholds, in one pass.

    Args:
        model: A model for this category alone.
        datamodule: The category. Where its validation set is the test set, the outcome is that of the paper's protocol.
        advance: Called with the number of images of each batch that is scored.
    """
    from lightning.pytorch.callbacks import LambdaCallback

    batches: list[ImageBatch] = []

    def keep(trainer: Trainer, module: LightningModule, outputs: ImageBatch, *rest: Any) -> None:
        del trainer, module, rest
        batches.append(outputs)
        advance(len(outputs))

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
    """An engine that prints nothing and whose files are gone afterwards."""
    from anomalib.engine import Engine

    options = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "devices": 1, **options}
    with quiet(), tempfile.TemporaryDirectory() as folder:
        yield Engine(default_root_dir=folder, **options)


def with_mean(table: Mapping[str, Metrics]) -> dict[str, Metrics]:
    """The same table with a last row, the mean over the categories."""
    names = next(iter(table.values()))
    return {**table, "mean": {name: sum(row[name] for row in table.values()) / len(table) for name in names}}


def write_table(path: Path, table: Mapping[str, Metrics]) -> None:
    """Write metrics (category to metric to value) as CSV."""
    import pandas as pd

    pd.DataFrame(table).T.to_csv(path, index_label="category", float_format="%.4f")


def format_table(table: Mapping[str, Metrics], title: str = "category") -> str:
    """The metrics as a Markdown table."""
    names = list(next(iter(table.values())))
    columns = [(title, ""), *((name, ".3f") for name in names)]
    return markdown_table(columns, ([category, *(row[name] for name in names)] for category, row in table.items()))


@contextmanager
def quiet() -> Iterator[None]:
    """Leave the terminal to the results for a while; to be entered after Lightning's import, which sets levels too."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(("lightning", "anomalib"))]
    levels = {logger: logger.level for logger in map(logging.getLogger, [*names, None])}
    for logger in levels:
        logger.setLevel(logging.WARNING if logger is logging.root else logging.ERROR)
    try:
        with warnings.catch_warnings():
            for remark in ("num_workers", "treespec"):  # of torch and Lightning
                warnings.filterwarnings("ignore", message=f".*{remark}")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
