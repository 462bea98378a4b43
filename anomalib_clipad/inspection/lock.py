"""One run at a time in a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

LOCK_FILE = ".lock"

if sys.platform == "win32":
    import msvcrt

    _BEYOND = 1 << 20  # what is locked there cannot be read either, and the process id is at the beginning

    def _try_lock(file: IO[str]) -> bool:
        file.seek(_BEYOND)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(file: IO[str]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def folder_lock(folder: Path, name: str = LOCK_FILE) -> Iterator[None]:
    """Hold a folder, or a file in it that has a lock of its own. The system lets go when the process ends, however.

    Raises:
        BlockingIOError: If another run holds it.
    """
    path = folder / name
    file = _locked(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is locked, so that nobody locks a file that is about to go
        file.close()
        if sys.platform == "win32":  # which removes no open file
            with suppress(OSError):
                path.unlink()


def _locked(path: Path) -> IO[str]:
    while True:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("a+", encoding="utf-8"))
            _lock(file, path.parent)
            if _is_at(file, path):
                file.truncate(0)
                file.write(f"{os.getpid()}\n")
                file.flush()
                stack.pop_all()
                return file


def _lock(file: IO[str], folder: Path) -> None:
    if not _try_lock(file):
        file.seek(0)
        holder = file.read(20).strip() or "unknown"
        msg = f"Another run writes to {folder} (process {holder}). Wait for it, or name another folder."
        raise BlockingIOError(msg)


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether the file is still there: who held it before may have removed it in between."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
