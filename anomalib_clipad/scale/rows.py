"""What workers of a cluster find, on its way to the record of a run, and the Parquet file of such a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_clipad.images.content import content_at, stamp_of
from anomalib_clipad.inspection import tables
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.records import as_line, read_results, result_of
from anomalib_clipad.inspection.tables import PARQUET, REGION_COLUMNS, RESULT_COLUMNS, region_rows, result_row
from anomalib_clipad.storage import atomic_folder

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 10_000
"""Rows in memory at a time."""


def found(inspector: Inspector, images: pa.Table) -> pa.Table:
    """Inspect images.

    Args:
        inspector: Who does it.
        images: What they are called, where they are, and what identifies them: ``path``, ``file`` and ``place``.

    Returns:
        A row for each, in order: ``path``, ``place``, its ``line`` in the record, or why it could not be inspected,
        ``error``.
    """
    import pyarrow as pa

    given = {Path(row["file"]): row for row in images.to_pylist()}
    stamps = {file: stamp_of(row["place"]) for file, row in given.items()}
    lines: dict[Path, str] = {}
    errors: dict[Path, str] = {}
    for finding in inspector.stream(list(given), lambda file, error: errors.update({file: str(error)})):
        file = finding.path
        assert file is not None
        place = given[file]["place"]
        content = content_at(place, place, stamps[file])
        lines[file] = as_line(result_of(finding, given[file]["path"], "", content))
    text = pa.string()
    rows = [{**row, "line": lines.get(file), "error": errors.get(file)} for file, row in given.items()]
    return pa.Table.from_pylist(rows, pa.schema([(name, text) for name in ("path", "place", "line", "error")]))


def write_parquet(folder: Path, failed: Mapping[str, str]) -> None:
    """Write ``results.parquet`` of a run on a cluster: with the regions of an image in its row, and with what failed.

    Args:
        folder: Of the run; the file is replaced as a whole or not at all.
        failed: Reasons by what the images are called.
    """
    import pyarrow as pa
    from pyarrow import parquet

    text, real, count = pa.string(), pa.float64(), pa.int64()
    region = pa.struct(list(zip(REGION_COLUMNS[1:], (*[count] * 5, *[real] * 3), strict=True)))
    schema = pa.schema({**tables.result_types(), "boxes": pa.list_(region), "error": text}.items())
    schema = schema.remove(schema.get_field_index("name"))  # there are no pictures

    def rows() -> Iterator[dict[str, Any]]:
        for result in read_results(folder):
            boxes = [dict(zip(REGION_COLUMNS[1:], row[1:], strict=True)) for row in region_rows(result)]
            row = {name: value for name, value in zip(RESULT_COLUMNS, result_row(result), strict=True) if value != ""}
            yield {**row, "boxes": boxes}

    whole = chain(rows(), ({"path": path, "error": reason} for path, reason in failed.items()))
    with atomic_folder(folder) as new, parquet.ParquetWriter(new / PARQUET, schema) as writer:
        while some := list(islice(whole, _ROWS)):
            writer.write_table(pa.Table.from_pylist(some, schema))
