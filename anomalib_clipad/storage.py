"""The cache folder, and atomic writing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

DIRECTORY_VARIABLE = "ANOMALIB_CLIPAD_CACHE"
UNFINISHED = ".unfinished-"
"""How the names of folders begin whose files are still being written."""


def cache_directory() -> Path:
    """Where downloads, embeddings and pictures are: ``$ANOMALIB_CLIPAD_CACHE`` or the platform's user cache."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    return Path(given).expanduser() if given else user_cache_path("anomalib_clipad", appauthor=False)


def is_safetensors(path: Path) -> bool:
    """Whether a file is one of safetensors, by its content: files in the hub's cache have no suffix."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary folder whose files go to ``target`` together: all of them when the block ends well, else none.

    The files get the permissions that the user's umask gives to any new file.

    Args:
        target: Folder of the finished files; created where it is missing.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=UNFINISHED) as name:
        new, old = Path(name) / "new", Path(name) / "old"
        new.mkdir()
        old.mkdir()
        yield new
        files = sorted(new.iterdir())
        for file in files:
            file.chmod(new.stat().st_mode & 0o666)
        _replace_all(files, target, old)


def _replace_all(files: Sequence[Path], target: Path, old: Path) -> None:
    """Move the files to ``target``; where one cannot be moved, put back what the others have replaced."""
    if len(files) == 1:
        files[0].replace(target / files[0].name)
        return
    for file in files:
        _keep(target / file.name, old / file.name)
    try:
        for file in files:
            file.replace(target / file.name)
    except BaseException:
        for file in files:
            before, place = old / file.name, target / file.name
            if before.exists():
                before.replace(place)
            elif not file.exists():  # it was moved to where nothing was
                place.unlink()
        raise


def _keep(place: Path, copy: Path) -> None:
    """Keep what is at ``place`` under a second name, if anything is; ``place`` itself stays as it is."""
    try:
        copy.hardlink_to(place)
    except FileNotFoundError:
        return
    except OSError:  # a file system without hard links
        shutil.copy2(place, copy)
