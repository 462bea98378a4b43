"""Lists of paths: text files, standard input, Parquet files. A path at a time is in memory, or a batch of them."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from anomalib_clipad.images.picture import UnreadableError

_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_BYTES_OF_UTF8 = range(0xDC80, 0xDD00)
"""What Python puts in the place of bytes that are no UTF-8."""


def names_in_text(file: IO[bytes], name: str) -> Iterator[str]:
    """The lines of a list in UTF-8, or in UTF-16 that says so by a byte-order mark; those before a wrong one count.

    Args:
        file: The list.
        name: What it is called in messages.

    Raises:
        UnreadableError: At the first line that is neither.
    """
    buffered: Any = file if hasattr(file, "peek") else io.BufferedReader(file)
    start = buffered.peek(3)
    encoding = next((found for bom, found in _BOMS.items() if start.startswith(bom)), "utf-8")
    lines = io.TextIOWrapper(buffered, encoding, errors="strict" if encoding == "utf-16" else "surrogateescape")
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            _check(line, number, name)
            if entry := line.rstrip("\r\n"):
                yield entry
    except UnicodeDecodeError as error:
        msg = f"{name} is cut or damaged after line {number} ({error.reason}). Save it as UTF-8."
        raise UnreadableError(msg) from error
    finally:
        lines.detach()  # whoever has opened the file closes it


def _check(line: str, number: int, name: str) -> None:
    wrong = next((place for place, letter in enumerate(line) if letter == "\0" or ord(letter) in _BYTES_OF_UTF8), None)
    if wrong is None:
        return
    byte = line[wrong].encode("utf-8", "surrogateescape")[0]
    column = len(line[:wrong].encode("utf-8", "surrogateescape")) + 1
    msg = (
        f"{name} is a list in neither UTF-8 nor UTF-16 with a byte-order mark: line {number}, byte {column}, is "
        f"0x{byte:02x}. Save it as UTF-8; neither this line nor those after it are looked at."
    )
    raise UnreadableError(msg)


def names_in_parquet(path: Path) -> Iterator[str]:
    """The column ``path`` of a Parquet file: text, or categories of text.

    Raises:
        UnreadableError: If it is no such file, is damaged, or has no such column.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
        kinds = {entry.name: entry.type for entry in table.schema_arrow}
        if not _is_text(kinds.get("path")):
            had = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
            msg = f"{path} has no column of text 'path'; it has {had}. Call that of the paths so."
            raise UnreadableError(msg)
        for batch in table.iter_batches(columns=["path"]):
            yield from (str(name) for name in batch.column(0).to_pylist() if name)
    except (OSError, pa.ArrowException) as error:
        msg = f"{path} is no Parquet file, or is damaged. Write it anew."
        raise UnreadableError(msg) from error


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if kind is not None and pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind is not None and str(kind) in {"string", "large_string", "string_view"}
