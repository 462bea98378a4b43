"""Testing a model on a data module through anomalib's engine, by the paper's protocol."""

from __future__ import annotations

import csv
import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .tables import markdown_table

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule

    from anomalib_clipad import ClipAD
    from anomalib_clipad.metrics import Metrics


def evaluate(model: ClipAD, datamodule: AnomalibDataModule) -> Metrics:
    """The seven metrics of a model on one category.

    The validation set decides the protocol: if it is the test set, as by default, the paper's.
    """
    from anomalib.engine import Engine

    be_quiet()
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(default_root_dir=folder, logger=False, enable_progress_bar=False, accelerator="cpu", devices=1)
        (metrics,) = engine.test(model=model, datamodule=datamodule, verbose=False)
    return {name: float(value) for name, value in metrics.items()}


def with_mean(table: Mapping[str, Metrics]) -> dict[str, Metrics]:
    """The same table with a last row, the mean over the categories."""
    names = next(iter(table.values()))
    return {**table, "mean": {name: sum(row[name] for row in table.values()) / len(table) for name in names}}


def write_table(path: Path, table: Mapping[str, Metrics]) -> None:
    """Write metrics (category to metric to value) as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["category", *next(iter(table.values()))])
        for name, row in table.items():
            writer.writerow([name, *(f"{value:.4f}" for value in row.values())])


def format_table(table: Mapping[str, Metrics], title: str = "category") -> str:
    """The metrics as a Markdown table."""
    names = list(next(iter(table.values())))
    columns = [(title, ""), *((name, ".3f") for name in names)]
    return markdown_table(columns, ([category, *(row[name] for name in names)] for category, row in table.items()))


def be_quiet() -> None:
    """Leave the terminal to the results; to be called after Lightning's import, which sets levels of its own."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("lightning", "anomalib")):
            logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger().setLevel(logging.WARNING)
    for remark in ("num_workers", "treespec"):  # of torch and Lightning
        warnings.filterwarnings("ignore", message=f".*{remark}")
