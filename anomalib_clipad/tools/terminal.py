"""Printing that never costs results: what a terminal cannot show is written otherwise, and nobody needs to listen."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any


def steady_output() -> None:
    """Let nothing that is printed from now on end the program.

    A character that the terminal's encoding lacks is printed by its number. A reader that has left, as `head` does, or
    a terminal that is gone, gets nothing more.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):  # of a notebook or a test; or there is none
            continue
        stream.reconfigure(errors="backslashreplace")
        console = os.name == "nt" and stream.isatty()  # it is no file
        if stream is getattr(sys, f"__{name}__") and not console:
            with suppress(OSError):
                setattr(sys, name, _unheard(stream))


def _unheard(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, for a reader who may leave."""
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Pipe(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Pipe(io.FileIO):
    """A file or a pipe that takes everything, also where nobody reads it any more."""

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return len(memoryview(data).cast("B"))
