"""By what a file is known again: where it is, and what it holds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

_PART = 1 << 20


class Stamp(NamedTuple):
    """What a file system tells of a file without reading it. Where it is the same, so is the content.

    Attributes:
        size: In bytes.
        modified: When its content was changed, in nanoseconds.
        changed: When that or anything else of it was, which no program can set back.
    """

    size: int
    modified: int
    changed: int


class Content(NamedTuple):
    """What a file held when it was looked at.

    Attributes:
        place: Where the file is, all links followed; of a frame of a film with the frame's number.
        digest: BLAKE2b of all its bytes; empty where the file changed while it was looked at.
        stamp: At that time, if the file was there.
    """

    place: str
    digest: str = ""
    stamp: Stamp | None = None


def stamp_of(file: str | os.PathLike[str]) -> Stamp | None:
    """The stamp of a file; ``None`` where there is none."""
    try:
        about = Path(file).stat()
    except (OSError, ValueError):  # a name that no file can have
        return None
    return Stamp(about.st_size, about.st_mtime_ns, about.st_ctime_ns)


def digest_of(file: str | os.PathLike[str], stamp: Stamp | None = None) -> str:
    """The digest of what a file holds.

    Args:
        file: The file.
        stamp: Of the time that is asked for; by default now.

    Returns:
        Empty where the file is no longer what it was, or cannot be read.
    """
    before = stamp or stamp_of(file)
    return "" if before is None else _digest(os.fspath(file), before)


@lru_cache(maxsize=64)  # the frames of a film have one file
def _digest(file: str, stamp: Stamp) -> str:
    try:
        with Path(file).open("rb") as opened:
            whole = blake2b(digest_size=16)
            while part := opened.read(_PART):
                whole.update(part)
    except OSError:
        return ""
    return whole.hexdigest() if stamp_of(file) == stamp else ""


def content_of(file: str | os.PathLike[str]) -> Content:
    """What a file holds now."""
    return content_at(os.path.realpath(file), file, stamp_of(file))


def content_at(place: str, file: str | os.PathLike[str], stamp: Stamp | None) -> Content:
    """What a file held at the time of its stamp; without a digest where it is no longer what it was then."""
    digest = "" if stamp is None else digest_of(file, stamp)
    return Content(place, digest, stamp if digest else None)


def digest_of_all(parts: Iterable[str | bytes]) -> str:
    """One digest of several texts, in their order."""
    whole = blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode(errors="surrogateescape")
        whole.update(len(data).to_bytes(8, "little"))
        whole.update(data)
    return whole.hexdigest()
