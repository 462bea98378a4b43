"""A folder that fills: a file counts when it has been still, and again when it is written anew."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from anomalib_clipad.images.content import Stamp, stamp_of
from anomalib_clipad.images.listing import check_folder, walk

from .sources import Source

STILL = 1.0
"""Seconds for which a file has to stay as it is."""
_OFTEN = 0.25
"""Seconds between looks at the folder."""
_NOWHERE = Stamp(0, 0, 0)
"""Of a link that leads to nothing."""


class _Seen(NamedTuple):
    stamp: Stamp
    since: float
    given: bool


def watch(folder: Path, still: float = STILL, often: float = _OFTEN) -> Iterator[Source | None]:
    """The images of a folder, and those that arrive or are written anew, until the generator is closed.

    A file counts when its size and its times have stayed the same for a while, so that none is read while it is still
    written. One that is written again later counts again.

    Args:
        folder: With its subfolders.
        still: How long, in seconds.
        often: Seconds between looks at the folder.

    Returns:
        A generator; ``None`` where there is no other image for now.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is the output folder of an inspection.
    """
    check_folder(folder)
    seen: dict[Path, _Seen] = {}
    while True:
        now = time.monotonic()
        before, seen = seen, {}
        for path, real in walk(folder):
            stamp = stamp_of(path) or (_NOWHERE if path.is_symlink() else None)
            if stamp is None:  # it has gone
                continue
            known = before.get(path)
            if known is None or known.stamp != stamp:
                known = _Seen(stamp, now, given=False)
            seen[path] = known
            if not known.given and now - known.since >= still:
                seen[path] = known._replace(given=True)
                yield Source(path, path, path.relative_to(folder), None if real is None else Path(real))
        yield None
        time.sleep(often)
