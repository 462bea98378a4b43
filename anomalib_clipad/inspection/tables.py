"""The tables of a run: what is in them, how they are read again, and what they come to."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from anomalib_clipad.storage import atomic_folder

from .lines import Cell, cells, readable, whole_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from .finding import Finding

RESULT_COLUMNS = ("path", "score", "p_value", "label", "threshold", "width", "height", "regions", "name")
REGION_COLUMNS = ("path", "left", "top", "width", "height", "area", "peak", "mean", "p_value")
FAILED_COLUMNS = ("path", "reason")
LABELS = ("good", "defective")
WORST = 10


class Result(NamedTuple):
    r"""A row of ``results.csv``.

    Attributes:
        path: As it was given; bytes that are no text as ``\udcff``.
        score: Image score.
        p_value: If the model is calibrated.
        label: ``good`` or ``defective``.
        threshold: Of the score.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        regions: How many rows of ``regions.csv`` are of this image.
        name: Its pictures are ``masks/<name>.png``, ``overlays/<name>.jpg``, ``maps/<name>.png`` or ``.npy``.
    """

    path: str
    score: float
    p_value: float | None
    label: str
    threshold: float
    width: int
    height: int
    regions: int
    name: str


@dataclass(frozen=True)
class Summary:
    """What a run came to, with all that was there before it was resumed.

    Attributes:
        folder: Where the files are.
        images: How many were inspected.
        defective: How many of them are.
        failed: How many could not be inspected.
        worst: At most ten, the highest score first.
    """

    folder: Path
    images: int
    defective: int
    failed: int
    worst: tuple[Result, ...]


def result_row(finding: Finding, path: str, name: str) -> list[Cell]:
    """The row of a finding in ``results.csv``."""
    height, width = finding.image.shape[:2]
    p_value = None if finding.p_value is None else float(finding.p_value)
    label = LABELS[bool(finding.label)]
    numbers = (float(finding.threshold), width, height, len(finding.regions))
    return [readable(path), float(finding.score), p_value, label, *numbers, name]


def region_rows(finding: Finding, path: str) -> list[list[Cell]]:
    """The rows of a finding in ``regions.csv``."""
    return [
        [
            readable(path),
            *(int(edge) for edge in region.box),
            int(region.area),
            float(region.peak),
            float(region.mean),
            None if region.p_value is None else float(region.p_value),
        ]
        for region in finding.regions
    ]


def read_results(path: Path) -> Iterator[Result]:
    """The whole rows of ``results.csv``, one in memory at a time."""
    for row in islice(whole_rows(path), 1, None):
        where, score, p_value, label, threshold, width, height, regions, name = cells(row)
        rare = float(p_value) if p_value else None
        yield Result(where, float(score), rare, label, float(threshold), int(width), int(height), int(regions), name)


def summarize(folder: Path, results: Iterable[Result | None], failed: int = 0) -> Summary:
    """What results come to, one in memory at a time; ``None`` is one that failed, beside those counted before."""
    images = defective = 0

    def counted() -> Iterator[Result]:
        nonlocal images, defective, failed
        for result in results:
            if result is None:
                failed += 1
                continue
            images += 1
            defective += result.label == LABELS[True]
            yield result

    worst = heapq.nlargest(WORST, counted(), key=lambda result: math.inf if math.isnan(result.score) else result.score)
    return Summary(folder, images, defective, failed, tuple(worst))


def result_types() -> dict[str, pa.DataType]:
    """The columns of ``results.csv`` in Parquet."""
    import pyarrow as pa

    text, real, count = pa.string(), pa.float64(), pa.int64()
    return dict(zip(RESULT_COLUMNS, (text, real, real, text, real, count, count, count, text), strict=True))


def write_parquet(table: Path, target: Path) -> None:
    """Write ``results.csv`` as Parquet, a megabyte in memory at a time; no cell needs a guard there.

    Args:
        table: ``results.csv``; all of its rows are whole.
        target: File to write; replaced as a whole or not at all.
    """
    import pyarrow as pa
    from pyarrow import compute, csv, parquet

    text, types = pa.string(), result_types()
    schema = pa.schema(types.items())
    reader = csv.open_csv(
        table,
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=types, null_values=[""]),
    )
    with (
        atomic_folder(target.parent) as folder,
        parquet.ParquetWriter(folder / target.name, schema) as writer,
        reader,
    ):
        for batch in reader:
            columns = [
                compute.replace_substring_regex(column, r"\A'('*[=+\-@\t\r\n])", r"\1") if kind == text else column
                for column, kind in zip(batch.columns, schema.types, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
