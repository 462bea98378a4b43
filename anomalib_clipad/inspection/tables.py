"""The tables of a run, made of its record, and what they come to."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_clipad.storage import atomic_folder

from .lines import Cell, as_rows
from .records import LABELS, Result, read_results

if TYPE_CHECKING:
    import pyarrow as pa

RESULT_COLUMNS = (
    *("path", "score", "p_value", "label", "threshold", "width", "height", "regions", "name"),
    *("text_score", "reference_score", "remark", "decided", "verdict"),
)
REGION_COLUMNS = ("path", "left", "top", "width", "height", "area", "peak", "mean", "p_value")
FAILED_COLUMNS = ("path", "reason")
PARQUET = "results.parquet"
WORST = 10


@dataclass(frozen=True)
class Summary:
    """What a run came to, with all that was there before it was resumed.

    Attributes:
        folder: Where the files are.
        images: How many were inspected.
        defective: How many of them are.
        failed: How many could not be inspected.
        worst: At most ten, the highest score first.
        parts: What there is to say of parts that several pictures show.
        verdicts: How often there is each of three verdicts; empty where there are only two.
    """

    folder: Path
    images: int
    defective: int
    failed: int
    worst: tuple[Result, ...]
    parts: tuple[str, ...] = ()
    verdicts: Mapping[str, int] = field(default_factory=dict)


def result_row(result: Result) -> list[Cell]:
    """Its row in ``results.csv``."""
    first: list[Cell] = [result.path, result.score, result.p_value, result.label, result.threshold]
    first += [result.width, result.height, len(result.regions), result.name]
    return [*first, result.text_score, result.reference_score, result.remark, result.decided, result.verdict]


def region_rows(result: Result) -> list[list[Cell]]:
    """Its rows in ``regions.csv``."""
    return [[result.path, *box, *numbers] for box, *numbers in result.regions]


def write_tables(folder: Path) -> None:
    """Write ``results.csv`` and ``regions.csv`` of a record anew, both or neither."""
    with (
        atomic_folder(folder) as new,
        (new / "results.csv").open("w", encoding="utf-8", newline="") as results,
        (new / "regions.csv").open("w", encoding="utf-8", newline="") as regions,
    ):
        results.write(as_rows([RESULT_COLUMNS]))
        regions.write(as_rows([REGION_COLUMNS]))
        for result in read_results(folder):
            results.write(as_rows([result_row(result)]))
            regions.write(as_rows(region_rows(result)))


def summarize(folder: Path, results: Iterable[Result | None], failed: int = 0, parts: Iterable[str] = ()) -> Summary:
    """What results come to, one in memory at a time; ``None`` is one that failed, beside those counted before."""
    images = defective = 0
    verdicts = Counter[str]()

    def counted() -> Iterator[Result]:
        nonlocal images, defective, failed
        for result in results:
            if result is None:
                failed += 1
                continue
            images += 1
            defective += result.label == LABELS[True]
            verdicts.update([result.verdict] if result.verdict else [])
            yield result

    worst = heapq.nlargest(WORST, counted(), key=lambda result: math.inf if math.isnan(result.score) else result.score)
    return Summary(folder, images, defective, failed, tuple(worst), tuple(parts), dict(verdicts))


def result_types() -> dict[str, pa.DataType]:
    """The columns of ``results.csv`` in Parquet."""
    import pyarrow as pa

    text, real, count = pa.string(), pa.float64(), pa.int64()
    first = (text, real, real, text, real, count, count, count, text)
    return dict(zip(RESULT_COLUMNS, (*first, real, real, text, pa.bool_(), text), strict=True))


def write_parquet(folder: Path, _failed: Mapping[str, str]) -> None:
    """Write ``results.csv`` as ``results.parquet``, a megabyte in memory at a time; no cell needs a guard there.

    Args:
        folder: Of the run; the file is replaced as a whole or not at all.
    """
    import pyarrow as pa
    from pyarrow import compute, csv, parquet

    text, types = pa.string(), result_types()
    schema = pa.schema(types.items())
    reader = csv.open_csv(
        folder / "results.csv",
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True),
    )
    with (
        atomic_folder(folder) as new,
        parquet.ParquetWriter(new / PARQUET, schema) as writer,
        reader,
    ):
        for batch in reader:
            columns = [
                compute.replace_substring_regex(column, r"\A'('*[=+\-@\t\r\n])", r"\1") if kind == text else column
                for column, kind in zip(batch.columns, schema.types, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
