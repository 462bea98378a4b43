"""What an interrupted run has left: which images are complete, and how much of each file belongs to them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from .lines import as_given, as_rows, whole_lines, whole_rows
from .picture_files import remove_pictures, tidy
from .run_folder import COCO_ENTRIES, NAMES, handed_out
from .tables import RESULT_COLUMNS, read_results


class Recovered(NamedTuple):
    """What can be gone on with.

    Attributes:
        images: How many have results.
        done: Their paths.
        names: Their names.
        sizes: Bytes of each file that belong to them.
    """

    images: int
    done: set[str]
    names: set[str]
    sizes: dict[str, int]


def recover(folder: Path, coco: bool) -> Recovered:
    """Read what is whole, and remove pictures of images that are not complete.

    Failures are forgotten: what has failed is tried again.

    Args:
        folder: Output folder of the interrupted run.
        coco: Whether it has COCO entries.

    Raises:
        ValueError: If its files do not belong together.
    """
    try:
        recovered = _read(folder, coco)
    except ValueError as error:
        msg = f"The tables in {folder} are damaged ({error}). Overwrite the run, or name another folder."
        raise ValueError(msg) from error
    tidy(folder, remove_pictures(folder, handed_out(folder) - recovered.names))
    return recovered


def _read(folder: Path, coco: bool) -> Recovered:
    results = folder / "results.csv"
    rows = whole_rows(results)
    header = next(rows, b"")
    if not header:  # interrupted before anything was inspected
        return Recovered(0, set(), set(), {})
    if header != as_rows([RESULT_COLUMNS]).encode():
        msg = f"the columns of results.csv are not {', '.join(RESULT_COLUMNS)}"
        raise ValueError(msg)
    images = regions = 0
    done: set[str] = set()
    names: set[str] = set()
    for result in read_results(results):
        images += 1
        regions += result.regions
        done |= {result.path, as_given(result.path)}
        names.add(result.name)
    sizes = {
        "results.csv": len(header) + sum(map(len, rows)),
        "regions.csv": _size("regions.csv", whole_rows(folder / "regions.csv"), 1 + regions),
        COCO_ENTRIES: _size("COCO entries", whole_lines(folder / COCO_ENTRIES), images if coco else 0),
        NAMES: sum(map(len, whole_lines(folder / NAMES))),
    }
    return Recovered(images, done, names, sizes)


def _size(what: str, entries: Iterable[bytes], count: int) -> int:
    """Bytes of the first entries."""
    found = size = 0
    for entry in islice(entries, count):
        found += 1
        size += len(entry)
    if found < count:
        msg = f"{what}: {found} lines where {count} are expected"
        raise ValueError(msg)
    return size
