"""The cache folder, who may write there, and atomic writing."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_path

DIRECTORY_VARIABLE = "ANOMALIB_CLIPAD_CACHE"
UNFINISHED = ".unfinished-"
"""How the names of folders begin in which something is being written."""


class UntrustedError(ValueError):
    """A folder or file of the cache that someone else can write to."""


def cache_directory() -> Path:
    """Where downloads, embeddings and pictures are: ``$ANOMALIB_CLIPAD_CACHE`` or the platform's user cache."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    return Path(given).expanduser() if given else user_cache_path("anomalib_clipad", appauthor=False)


def cache_folder(kind: str, directory: Path | None = None, create: bool = True) -> Path:
    """A folder of the cache, to read from and to write to.

    Args:
        kind: Its name.
        directory: The cache; by default that of the user.
        create: Make it where it is missing, for the user alone.

    Raises:
        UntrustedError: If it, or the cache, is not to be trusted.
    """
    directory = directory or cache_directory()
    for folder in (directory, directory / kind):
        with suppress(OSError):  # whoever reads or writes there says what is wrong
            if create:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_trusted(folder)
    return directory / kind


def check_trusted(path: Path) -> None:
    """Check that nobody but the user and root can write to a folder or a file of the cache.

    A folder such as ``/tmp``, where everybody can add but nobody can replace what is another's, is fine. Of systems
    other than POSIX nothing is said.

    Raises:
        UntrustedError: If someone else can; the message says what to do.
    """
    try:
        state = path.stat()
    except OSError:  # it is not there, or not to be reached
        return
    if os.name != "posix":
        return
    if state.st_uid not in {os.geteuid(), 0}:
        fault = f"it belongs to another user (number {state.st_uid})"
        remedy = ""
    elif state.st_mode & 0o022 and not (stat.S_ISDIR(state.st_mode) and state.st_mode & stat.S_ISVTX):
        fault = f"others can write to it (its mode is {stat.S_IMODE(state.st_mode):04o})"
        remedy = f"Take that right from them (chmod go-w '{path}'), or "
    else:
        return
    advice = f"{remedy}set {DIRECTORY_VARIABLE} to a folder of your own."
    msg = f"The cache {path} is not used, since {fault}. {advice[0].upper()}{advice[1:]}"
    raise UntrustedError(msg)


def is_safetensors(path: Path) -> bool:
    """Whether a file is one of safetensors, by its content: files in the hub's cache have no suffix."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


@contextmanager
def atomic_folder(target: Path, mode: int = 0o666) -> Iterator[Path]:
    """A temporary folder whose files go to ``target`` together: all of them when the block ends well, else none.

    The files get the permissions that the user's umask gives to any new file.

    Args:
        target: Folder of the finished files; created where it is missing.
        mode: Permissions that the files have at most.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=UNFINISHED) as name:
        new, old = Path(name) / "new", Path(name) / "old"
        new.mkdir()
        old.mkdir()
        yield new
        files = sorted(new.iterdir())
        for file in files:
            file.chmod(new.stat().st_mode & mode)
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
