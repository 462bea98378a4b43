"""The `anomalib` command shows an error of ours as its message, not below 190 lines of jsonargparse's traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType


@contextmanager
def message_alone() -> Iterator[None]:
    """Let an error raised in the block, if it ends the `anomalib` command, be printed as its message alone.

    The error itself goes on as any other: who catches it, such as `anomalib benchmark` or a program, notices nothing.
    """
    try:
        yield
    except Exception as error:
        if Path(sys.argv[0]).stem == "anomalib":
            _print_alone(error)
        raise


def _print_alone(error: Exception) -> None:
    message, others = str(error), sys.excepthook

    def hook(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        # jsonargparse raises an error of its own that quotes ours, indented
        if message and "".join(message.split()) in "".join(str(value).split()):
            print(f"Error: {message}", file=sys.stderr)
        else:
            others(kind, value, trace)

    sys.excepthook = hook
