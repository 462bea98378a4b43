"""Patterns such as ``parts/**/*.png``: what they match, links followed, and nothing that an inspection has written."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from anomalib_clipad.images.listing import folders_in, is_folder, is_output


def matched(pattern: str) -> list[Path]:
    """The files and folders that a pattern matches, in the order of their names.

    ``**`` stands for a folder and all its subfolders; at the end, for that folder itself. Hidden names match only what
    begins with a dot. What lies in an output folder is left out, unless the pattern names a folder inside of it.
    """
    base = str(_base(pattern))

    @cache
    def written(folder: str) -> bool:
        """Whether a folder, or one of those above it that the pattern does not name, is an output folder."""
        return is_output(folder) or (folder not in {base, above(folder)} and written(above(folder)))

    def above(path: str) -> str:
        return os.path.dirname(path) or "."  # noqa: PTH120  # of so many paths, it matters

    found = sorted({str(Path(path)) for path in _matched(pattern)})
    return [Path(path) for path in found if not written(path if is_folder(path) else above(path))]


def _matched(pattern: str) -> Iterator[str]:
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.glob(pattern)  # noqa: PTH207  # absolute patterns too
        return
    place = parts.index("**")
    before, after = Path(*parts[:place]), parts[place + 1 :]
    for base in _matched(str(before)) if glob.has_magic(str(before)) else [str(before)]:
        if not is_folder(base):
            continue
        if not after:
            yield base
            continue
        for folder in folders_in(Path(base)):
            if not any(part.startswith(".") for part in folder.relative_to(base).parts):
                yield from _matched(str(Path(glob.escape(str(folder)), *after)))


def _base(pattern: str) -> Path:
    """The folder that a pattern names before its first wildcard."""
    parts = Path(pattern).parts
    fixed = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])
