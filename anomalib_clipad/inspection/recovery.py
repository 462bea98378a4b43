"""What an interrupted run has left: its record up to the last whole line, and tables made of it anew."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from anomalib_clipad.images.content import Content

from .lines import cells, whole_lines, whole_rows
from .picture_files import remove_pictures, tidy
from .records import RECORDS, as_result
from .run_folder import NAMES, handed_out
from .tables import write_tables


class Recovered(NamedTuple):
    """What can be gone on with.

    Attributes:
        images: How many results there are.
        seen: What the images held when they were looked at last, by their places.
        names: Names of their pictures.
        failed: Reasons of what has failed, by what it is called.
        sizes: Bytes of each file that belong to them.
    """

    images: int
    seen: dict[str, Content]
    names: set[str]
    failed: dict[str, str]
    sizes: dict[str, int]


def recover(folder: Path) -> Recovered:
    """Read what is whole, make the tables of it, and remove pictures of images that are not in it.

    Raises:
        ValueError: If the record is damaged.
    """
    images = size = 0
    seen: dict[str, Content] = {}
    names: set[str] = set()
    try:
        for line in whole_lines(folder / RECORDS):
            result = as_result(line)
            images, size = images + 1, size + len(line)
            names.add(result.name)
            if result.file is not None:
                seen[result.file.place] = result.file
    except ValueError as error:
        msg = f"{RECORDS} in {folder} is damaged ({error}). Overwrite the run, or name another folder."
        raise ValueError(msg) from error
    tidy(folder, remove_pictures(folder, handed_out(folder) - names))
    write_tables(folder)
    failed = dict(_failed(folder / "failed.csv"))
    sizes = {name: (folder / name).stat().st_size for name in ("results.csv", "regions.csv")}
    sizes |= {RECORDS: size, NAMES: sum(map(len, whole_lines(folder / NAMES)))}
    return Recovered(images, seen, names, failed, sizes)


def _failed(table: Path) -> Iterator[tuple[str, str]]:
    """What has failed, and why."""
    for row in islice(whole_rows(table), 1, None):
        path, reason = cells(row)
        yield path, reason
