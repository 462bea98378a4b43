"""Quiet, and tables of metrics."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .tables import markdown_table

if TYPE_CHECKING:
    from anomalib_clipad.metrics import Metrics


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
