"""The order of a record: that of the images, however often the run was interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Set
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from anomalib_clipad.storage import atomic_folder

from .lines import whole_lines
from .records import RECORDS, as_result
from .tables import write_tables


class _Line(NamedTuple):
    rank: int
    start: int
    length: int


def put_in_order(
    folder: Path, ranks: Mapping[str, int], stale: Set[str | None] = frozenset(), others: int = -1
) -> set[str]:
    """Sort a record, keep of each file what was found in it last, and make the tables of it.

    Args:
        folder: Of the run.
        ranks: Where images come, by their places.
        stale: Places of which nothing counts any longer.
        others: Where those come of which that is not known, as they are.

    Returns:
        Names of the pictures whose images are no longer in it.
    """
    lines: dict[str, tuple[_Line, str]] = {}
    gone: set[str] = set()
    start = 0
    changed = False
    for number, line in enumerate(whole_lines(folder / RECORDS)):
        result = as_result(line)
        place = f"\0{number}" if result.file is None else result.file.place
        before = lines.pop(place, None)
        if before is not None:
            gone.add(before[1])
            changed = True
        lines[place] = (_Line(ranks.get(place, others), start, len(line)), result.name)
        start += len(line)
    for place in [place for place in lines if place in stale]:
        gone.add(lines.pop(place)[1])
        changed = True
    ordered = sorted((line for line, _ in lines.values()), key=lambda line: (line.rank, line.start))
    if changed or any(first.start > second.start for first, second in pairwise(ordered)):
        with (
            atomic_folder(folder) as new,
            (folder / RECORDS).open("rb") as old,
            (new / RECORDS).open("wb") as record,
        ):
            for one in ordered:
                old.seek(one.start)
                record.write(old.read(one.length))
        write_tables(folder)
    return gone
