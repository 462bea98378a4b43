"""Files that grow by whole entries: what is cut off by a full disk or a killed process is taken back or left out."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import TypeAlias

Cell: TypeAlias = str | float | None
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""What a spreadsheet would compute; quotes before it count, so that the guard can be taken off again."""
_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
"""What a text file in UTF-8 cannot or should not hold; file names may."""
_MADE_READABLE = re.compile(r"\\u(0000|d[89a-f][0-9a-f]{2})")


class Lines:
    """A file to which entries are added, each of them whole or not at all.

    Args:
        path: The file; created where it is missing.
        size: What of it is kept, in bytes.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self._file = path.open("ab", buffering=0)
        self.truncate(size)

    def append(self, text: str) -> None:
        """Add entries.

        Raises:
            OSError: If they cannot be written; the file then is as it was.
        """
        data = memoryview(text.encode())
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except BaseException:
            self.truncate(self.size)
            raise
        self.size += written

    def truncate(self, size: int) -> None:
        """Leave out what lies beyond a size."""
        self._file.truncate(size)
        self.size = size

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file up to the first that is not whole; none where there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n") or b"\0" in line:
                return
            yield line


def whole_rows(path: Path) -> Iterator[bytes]:
    """The rows of a CSV file up to the first that is not whole; a cell in quotes may hold ends of lines."""
    row = bytearray()
    inside = 0
    for line in whole_lines(path):
        row += line
        inside ^= line.count(b'"') % 2
        if not inside:
            yield bytes(row)
            row.clear()


def as_rows(rows: Iterable[Sequence[Cell]]) -> str:
    r"""Rows as text; cells that a spreadsheet would compute begin with an apostrophe.

    >>> as_rows([("=1+1.png", -0.5, None)])
    "'=1+1.png,-0.5,\r\n"
    """
    buffer = StringIO(newline="")
    for row in rows:
        guarded = [f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell for cell in row]
        csv.writer(buffer).writerow(guarded)
    return buffer.getvalue()


def cells(row: bytes) -> list[str]:
    """The cells of a row that ``as_rows`` has written, without apostrophes.

    >>> cells(as_rows([("=1+1.png", -0.5, None)]).encode())
    ['=1+1.png', '-0.5', '']
    """
    [texts] = csv.reader(StringIO(row.decode(), newline=""))
    return [text[1:] if text.startswith("'") and _FORMULA.match(text, 1) else text for text in texts]


def readable(text: str) -> str:
    r"""A file name as text that can be written in UTF-8.

    >>> readable("caf\udce9.png")
    'caf\\udce9.png'
    """
    return _UNREADABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def as_given(text: str) -> str:
    """The file name that ``readable`` has made readable."""
    return _MADE_READABLE.sub(lambda found: chr(int(found[1], 16)), text)
