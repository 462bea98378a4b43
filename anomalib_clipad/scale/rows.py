"""Rows of a run on a cluster: in Parquet, with the regions of an image in its row."""

from __future__ import annotations

import heapq
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.tables import LABELS, REGION_COLUMNS, Result, Summary, region_rows, result_row

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS = "results.parquet"
"""Folder of the Parquet files; readers take such a folder as they take a file."""
_WORST = 10


def schema() -> pa.Schema:
    """Columns of the results: those of a run in one process without names of pictures, regions, and why one failed."""
    import pyarrow as pa

    text, real, count = pa.string(), pa.float64(), pa.int64()
    kinds = (count, count, count, count, count, real, real, real)
    region = pa.struct(list(zip(REGION_COLUMNS[1:], kinds, strict=True)))
    columns = {"path": text, "score": real, "p_value": real, "label": text, "threshold": real}
    columns |= {
        "width": count,
        "height": count,
        "regions": count,
        "boxes": pa.list_(region),
        "remark": text,
        "error": text,
    }
    return pa.schema(columns.items())


def found(inspector: Inspector, paths: Sequence[str], files: Sequence[str]) -> pa.Table:
    """Inspect images.

    Args:
        inspector: Who does it.
        paths: What they are called.
        files: Where they are.

    Returns:
        A row for each; of one that cannot be read, ``error`` says why, and there is no score.
    """
    import pyarrow as pa

    called = {Path(file): path for file, path in zip(files, paths, strict=True)}
    rows: list[dict[str, Any]] = []

    def fail(file: Path, error: ValueError) -> None:
        rows.append({"path": called[file], "error": str(error)})

    for finding in inspector.stream(list(called), fail):
        assert finding.path is not None
        path = called[finding.path]
        names = schema().names[:8]
        row = dict(zip(names, [path, *result_row(finding, path, "")[1:8]], strict=True))
        boxes = [dict(zip(REGION_COLUMNS[1:], box[1:], strict=True)) for box in region_rows(finding, path)]
        rows.append({**row, "boxes": boxes, "remark": finding.remark})
    return pa.Table.from_pylist(rows, schema())


def tell_remarks(folder: Path) -> None:
    """Warn of images that the model knew, as an inspector in this process does."""
    from pyarrow import dataset

    known = dataset.field("remark").is_valid()
    found = dataset.dataset(folder / RESULTS, schema()).to_table(columns=["path", "remark"], filter=known)
    for row in found.slice(0, _WORST).to_pylist():
        warnings.warn(f"{row['path']}: {row['remark']}.", stacklevel=2)


def summarize(folder: Path) -> Summary:
    """What the results of a run come to, a batch of rows in memory at a time."""
    from pyarrow import dataset

    images = defective = failed = 0
    worst: list[tuple[float, str, Result]] = []
    columns = schema().names[:8]
    for batch in dataset.dataset(folder / RESULTS, schema()).to_batches(columns=[*columns, "error"]):
        for row in batch.to_pylist():
            if row.pop("error") is not None:
                failed += 1
                continue
            images += 1
            defective += row["label"] == LABELS[True]
            rank = math.inf if math.isnan(row["score"]) else row["score"]
            heapq.heappush(worst, (rank, row["path"], Result(**row, name="")))
            if len(worst) > _WORST:
                heapq.heappop(worst)
    return Summary(folder, images, defective, failed, tuple(result for *_, result in sorted(worst, reverse=True)))
