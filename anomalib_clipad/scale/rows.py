"""Rows of a run on a cluster: in Parquet, with the regions of an image in its row."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_clipad.inspection import tables
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.tables import (
    REGION_COLUMNS,
    RESULT_COLUMNS,
    WORST,
    Result,
    Summary,
    region_rows,
    result_row,
)

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS = "results.parquet"
"""Folder of the Parquet files; readers take such a folder as they take a file."""


def schema() -> pa.Schema:
    """Columns of the results: those of a run in one process without names of pictures, regions, and why one failed."""
    import pyarrow as pa

    text, real, count = pa.string(), pa.float64(), pa.int64()
    kinds = (count, count, count, count, count, real, real, real)
    region = pa.struct(list(zip(REGION_COLUMNS[1:], kinds, strict=True)))
    columns = {**tables.result_types(), "boxes": pa.list_(region), "remark": text, "error": text}
    del columns["name"]
    return pa.schema(columns.items())


def found(inspector: Inspector, paths: Sequence[str], files: Sequence[str], errors: Sequence[str | None]) -> pa.Table:
    """Inspect images.

    Args:
        inspector: Who does it.
        paths: What they are called.
        files: Where they are.
        errors: Why there is none of a name, if that is known already.

    Returns:
        A row for each; of one that cannot be read, ``error`` says why, and there is no score.
    """
    import pyarrow as pa

    named = list(zip(files, paths, errors, strict=True))
    called = {Path(file): path for file, path, error in named if error is None}
    rows: list[dict[str, Any]] = [{"path": path, "error": error} for _, path, error in named if error is not None]

    def fail(file: Path, error: ValueError) -> None:
        rows.append({"path": called[file], "error": str(error)})

    for finding in inspector.stream(list(called), fail):
        assert finding.path is not None
        path = called[finding.path]
        row = dict(zip(RESULT_COLUMNS[:-1], [path, *result_row(finding, path, "")[1:-1]], strict=True))
        boxes = [dict(zip(REGION_COLUMNS[1:], box[1:], strict=True)) for box in region_rows(finding, path)]
        rows.append({**row, "boxes": boxes, "remark": finding.remark})
    return pa.Table.from_pylist(rows, schema())


def tell_remarks(folder: Path) -> None:
    """Warn of images that the model knew, as an inspector in this process does."""
    from pyarrow import dataset

    known = dataset.field("remark").is_valid()
    found = dataset.dataset(folder / RESULTS, schema()).to_table(columns=["path", "remark"], filter=known)
    for row in found.slice(0, WORST).to_pylist():
        warnings.warn(f"{row['path']}: {row['remark']}.", stacklevel=2)


def summarize(folder: Path) -> Summary:
    """What the results of a run come to, a batch of rows in memory at a time."""
    from pyarrow import dataset

    rows = dataset.dataset(folder / RESULTS, schema()).to_batches(columns=[*RESULT_COLUMNS[:-1], "error"])
    entries = (entry for batch in rows for entry in batch.to_pylist())
    return tables.summarize(
        folder, (None if entry.pop("error") is not None else Result(**entry, name="") for entry in entries)
    )
