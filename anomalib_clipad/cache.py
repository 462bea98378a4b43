"""What is kept between runs to save time: entries by content, of bounded size, in a folder of the user's own.

Trouble with the folder costs time, never a result: what is missing, damaged or not to be trusted is worked out anew.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .storage import UNFINISHED, UntrustedError, atomic_folder, cache_directory, cache_folder, check_trusted

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

SIZE_VARIABLE = "ANOMALIB_CLIPAD_CACHE_SIZE"
DEFAULT_LIMIT = 1_000_000_000
KINDS = ("text", "start")
"""Prompt embeddings, and notes for a quick start."""
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")
_DAY = 24 * 60 * 60
_told: set[str] = set()


class File(NamedTuple):
    """An entry as a file.

    Attributes:
        used: When it was last read or written, in nanoseconds.
        size: In bytes.
        place: Where it is.
    """

    used: int
    size: int
    place: str

    @property
    def path(self) -> Path:
        """Where it is, as a path; of thousands it would take noticeable time to make them."""
        return Path(self.place)


class Entry(NamedTuple):
    """What is kept.

    Attributes:
        tensors: By name; finite numbers.
        note: Text beside them.
    """

    tensors: dict[str, Tensor]
    note: str = ""


class Cache:
    """Entries of one kind. An entry is what was put there and nothing else: its digest is in it.

    Args:
        kind: One of ``KINDS``.
        directory: The cache; by default that of the user.
    """

    def __init__(self, kind: str, directory: Path | None = None) -> None:
        self._kind, self._directory = kind, directory

    @property
    def folder(self) -> Path:
        """Where the entries are."""
        return (self._directory or cache_directory()) / self._kind

    def path(self, key: str) -> Path:
        """The file of an entry."""
        return self.folder / f"{key}.safetensors"

    def get(self, key: str) -> Entry | None:
        """The entry of a key, which makes it the one used last; ``None`` where there is none that is whole."""
        if not self._usable(create=False):
            return None
        from safetensors import SafetensorError, safe_open

        path = self.path(key)
        try:
            check_trusted(path)
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
                about = file.metadata() or {}
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, UntrustedError, RuntimeError) as error:
            if "No such file" not in str(error):  # so torch says it, where another process has just removed it
                logger.warning("Ignoring the unreadable cache entry %s: %s", path, error)
            return None
        entry = Entry(tensors, about.get("note", ""))
        if about.get("digest") != _digest(entry):
            logger.warning("Ignoring the cache entry %s: it is not what was written there.", path)
            return None
        with suppress(OSError):  # it may be read only, or have just been removed
            os.utime(path)
        return entry

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry, and remove those that were not used for longest where it gets too much."""
        entry = Entry({name: value.cpu().contiguous() for name, value in entry.tensors.items()}, entry.note)
        if not _finite(entry) or not self._usable(create=True):  # no number is a fault of now, which is not to last
            return
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        path = self.path(key)
        about = {"digest": _digest(entry), "note": entry.note}
        try:
            with atomic_folder(path.parent, mode=0o600) as folder:
                save_file(entry.tensors, folder / path.name, metadata=about)
        except (OSError, SafetensorError) as error:
            logger.warning("Nothing is kept for the next run, %s cannot be written: %s", path, error)
            return
        trim(limit(), self._directory)

    def _usable(self, create: bool) -> bool:
        if not limit():
            return False
        try:
            cache_folder(self._kind, self._directory, create)
        except UntrustedError as error:
            if str(error) not in _told:
                _told.add(str(error))
                warnings.warn(str(error), stacklevel=3)
            return False
        return True


def limit() -> int:
    """Bytes that all entries may have together; 0 keeps and reads none.

    Raises:
        ValueError: If the environment variable says something else than a size.
    """
    given = os.environ.get(SIZE_VARIABLE)
    if not given:
        return DEFAULT_LIMIT
    size = _SIZE.fullmatch(given)
    if size is None:
        msg = f"{SIZE_VARIABLE} has to be a size such as 500MB or 2GB, or 0 for no cache; got {given!r}."
        raise ValueError(msg)
    return int(float(size[1]) * (1024 if size[3] else 1000) ** _UNITS[size[2].lower()])


def files(kind: str, directory: Path | None = None) -> Iterator[File]:
    """The entries of a kind; other files in that folder are none."""
    with suppress(OSError), os.scandir((directory or cache_directory()) / kind) as found:
        for one in found:
            if _ENTRY.fullmatch(one.name):
                with suppress(OSError):  # another process may have removed it
                    state = one.stat()
                    yield File(state.st_mtime_ns, state.st_size, one.path)


def trim(most: int, directory: Path | None = None) -> None:
    """Remove entries that were not used for longest until the others have no more bytes, and what was left by writers.

    Args:
        most: Bytes that may stay; with 0 also unfinished files go that someone may still write.
        directory: The cache; by default that of the user.
    """
    found = [one for kind in KINDS for one in files(kind, directory)]
    size = sum(one.size for one in found)
    for one in sorted(found) if size > most else ():
        if size <= most:
            break
        size -= one.size
        with suppress(OSError):
            one.path.unlink()
    old = time.time() - (_DAY if most else 0)
    for kind in KINDS:
        for folder in ((directory or cache_directory()) / kind).glob(f"{UNFINISHED}*"):
            with suppress(OSError):
                if folder.stat().st_mtime <= old:
                    shutil.rmtree(folder, ignore_errors=True)


def _digest(entry: Entry) -> str:
    from .digest import digest

    return digest(entry.tensors, *filter(None, [entry.note]))


def _finite(entry: Entry) -> bool:
    return all(bool(value.isfinite().all()) for value in entry.tensors.values())
