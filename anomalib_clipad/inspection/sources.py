"""Where images come from: files, folders, patterns, lists, videos, standard input."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from anomalib_clipad.images.listing import FILMS, is_folder, is_output, refusal, walk
from anomalib_clipad.images.picture import Picture, UnreadableError

from .films import frames
from .path_lists import names_in_parquet, names_in_text
from .patterns import matched

PARQUET = ".parquet"
LISTS = frozenset({".txt", ".lst"})
_MOST_NAMES = 5
_LONGEST = 200


class AbsentError(UnreadableError):
    """There is nothing of a name, or nothing to look at in it."""


class Source(NamedTuple):
    """An image that is still to be read.

    Attributes:
        image: What ``Inspector`` takes; or, in its place, an ``UnreadableError`` that says why there is none.
        path: What it is called in tables; a frame of a video is called ``film.mp4#000012``.
        name: Path below the folder it was found in, by which its pictures are called.
        file: The real file that holds it, links followed: the image file, or the film of a frame; ``None`` where there
            is none.
    """

    image: Any
    path: Path
    name: PurePath
    file: Path | None = None

    @property
    def place(self) -> str:
        """What identifies it: its real file, and of a film the frame, as in ``/line/film.mp4#000012``."""
        if self.file is None:
            return str(self.path)
        number = f"#{self.path.name.rpartition('#')[2]}" if isinstance(self.image, Picture) else ""
        return f"{self.file}{number}"


def find(inputs: Sequence[str]) -> Iterator[Source]:
    """The images that a user names, in order, each once: by the first name under which its real file is met.

    What one input lacks is said by a source with an ``UnreadableError`` for an image, and those that follow come all
    the same.

    Args:
        inputs: Image files; folders, with their subfolders, see ``walk``; patterns such as ``parts/**/*.png``; text
            files of paths, one a line, or Parquet files with a column ``path``, relative to the file; videos; or ``-``
            for paths on standard input.

    Raises:
        FileNotFoundError: If there is nothing of any of the names.
    """
    given: set[str] = set()
    absent: list[Source] = []
    found = False
    for source in (source for entry in inputs for source in _of_entry(entry, given)):
        if source.place in given:
            continue
        given.add(source.place)
        if not found and isinstance(source.image, AbsentError):
            absent.append(source)
            continue
        yield from absent
        absent, found = [], True
        yield source
    if absent:
        more = f" And {len(absent) - _MOST_NAMES} more." if len(absent) > _MOST_NAMES else ""
        raise FileNotFoundError(" ".join(str(source.image) for source in absent[:_MOST_NAMES]) + more)


def _of_entry(entry: str, given: set[str]) -> Iterator[Source]:
    """The images of one input; ``given`` are the places that were had before."""
    name = os.path.expanduser(entry)  # noqa: PTH111  # leaves what no user is called
    path, shown = Path(name), entry if len(entry) <= _LONGEST else f"{entry[:_LONGEST]}..."
    if entry == "-":
        yield from _guarded(Path("-"), _listed(names_in_text(_standard_input(), "The list on standard input"), Path()))
    elif is_folder(name):
        yield from _of_folder(path)
    elif os.path.isfile(name):  # noqa: PTH113  # of a name that is too long, too
        yield from _of_file(path, given)
    elif os.path.islink(name):  # noqa: PTH114
        yield _failed(path, AbsentError(f"{shown} is a link to {path.readlink()}, which is not there."))
    elif glob.has_magic(name):
        paths = matched(name)
        if not paths:
            yield _failed(path, AbsentError(f"Nothing matches the pattern {shown}."))
        for one in paths:
            yield from _of_folder(one) if one.is_dir() else _of_file(one, given)
    else:
        yield _failed(path, AbsentError(f"There is no file or folder {shown}."))


def _failed(path: Path, error: UnreadableError, file: Path | None = None) -> Source:
    error.path = path
    return Source(error, path, PurePath(path.name), file)


def _guarded(path: Path, sources: Iterator[Source], file: Path | None = None) -> Iterator[Source]:
    """Sources of a list or a film, which may turn out to be damaged, or to hold nothing."""
    empty = True
    try:
        for source in sources:
            empty = False
            yield source
    except UnreadableError as error:
        yield _failed(path, error, file)
    else:
        if empty:
            yield _failed(path, AbsentError(f"The list {path} names no images."))


def _of_folder(folder: Path) -> Iterator[Source]:
    if is_output(folder):
        yield _failed(folder, AbsentError(refusal(folder)))
        return
    empty = True
    for path, real in walk(folder):
        empty = False
        yield Source(path, path, path.relative_to(folder), None if real is None else Path(real))
    if empty:
        yield _failed(folder, AbsentError(f"There are no images in {folder}."))


def _of_file(path: Path, given: set[str]) -> Iterator[Source]:
    suffix = path.suffix.lower()
    if suffix in FILMS:
        return _of_film(path, given)
    if suffix in LISTS:
        return _guarded(path, _lines_of(path))
    if suffix == PARQUET:
        return _guarded(path, _listed(names_in_parquet(path), path.parent))
    return iter([Source(path, path, PurePath(path.name), _real(path))])


def _real(path: Path) -> Path | None:
    """The file that a path leads to, if there is one."""
    try:
        real = os.path.realpath(path)
    except ValueError:  # a name with a zero byte
        return None
    return Path(real) if os.path.lexists(real) else None


def _lines_of(path: Path) -> Iterator[Source]:
    try:
        with path.open("rb") as file:
            yield from _listed(names_in_text(file, str(path)), path.parent)
    except OSError as error:
        msg = f"The list {path} cannot be read ({error.strerror})."
        raise UnreadableError(msg) from error


def _standard_input() -> Any:
    """Standard input as bytes, for lists have an encoding of their own."""
    return getattr(sys.stdin, "buffer", None) or io.BytesIO(sys.stdin.read().encode(errors="surrogateescape"))


def _listed(names: Iterator[str], folder: Path) -> Iterator[Source]:
    for name in names:
        path = folder / os.path.expanduser(name)  # noqa: PTH111  # leaves what no user is called
        given = PurePath(name)
        if os.sep == "/" and "\\" in name and not os.path.lexists(path):
            spelled = name.replace("\\", "/")  # as Windows has it
            if os.path.exists(folder / spelled):  # noqa: PTH110
                path, given = folder / spelled, PurePath(spelled)
        yield Source(path, path, given, _real(path))


def _of_film(path: Path, given: set[str]) -> Iterator[Source]:
    """The frames of a film that was not had before, and what is wrong with it."""
    real = Path(os.path.realpath(path))
    if f"{real}#" in given:
        return
    given.add(f"{real}#")
    sources = (
        Source(picture, picture.path, PurePath(path.stem) / picture.path.name.rpartition("#")[2], real)
        for picture in frames(path)
        if picture.path is not None
    )
    yield from _guarded(path, sources, real)
