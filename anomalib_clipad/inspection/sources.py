"""Where images come from: files, folders, patterns, lists, videos, standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from anomalib_clipad.images.listing import files_in
from anomalib_clipad.images.picture import Picture

PARQUET = ".parquet"
LISTS = frozenset({".txt", ".lst"})
VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})
_PATTERN = frozenset("*?[")


class Source(NamedTuple):
    """An image that is still to be read.

    Attributes:
        image: What ``Inspector`` takes.
        path: What it is called in tables; a frame of a video is called ``film.mp4#000012``.
        name: Path below the folder it was found in, by which its pictures are called.
        file: The file whose content it is, all links followed; ``None`` where there is none.
    """

    image: Any
    path: Path
    name: PurePath
    file: str | None = None

    @property
    def place(self) -> str:
        """What tells it from other images: its file, and the number of a frame."""
        return self.file or os.path.realpath(self.path)


def find(inputs: Sequence[str]) -> Iterator[Source]:
    """The images that a user names, in order.

    Args:
        inputs: Image files; folders, with their subfolders; patterns such as ``parts/**/*.png``; text files of paths,
            one a line, or Parquet files with a column ``path``, relative to the file; videos; or ``-`` for paths on
            standard input.

    Raises:
        FileNotFoundError: If there is nothing of a name, or no image in a folder; as soon as it comes to it.
    """
    for entry in inputs:
        path = Path(entry).expanduser()
        if entry == "-":
            yield from _listed(sys.stdin, Path())
        elif path.is_dir():
            yield from _of_folder(path)
        elif path.is_file():
            yield from _of_file(path)
        elif _PATTERN & set(entry):
            matched = sorted(glob.glob(entry, recursive=True))  # noqa: PTH207  # absolute patterns too
            if not matched:
                msg = f"Nothing matches the pattern {entry}."
                raise FileNotFoundError(msg)
            for one in map(Path, matched):
                yield from _of_folder(one) if one.is_dir() else _of_file(one)
        else:
            msg = f"There is no file or folder {entry}."
            raise FileNotFoundError(msg)


def _of_folder(folder: Path) -> Iterator[Source]:
    paths = files_in(folder)
    if not paths:
        msg = f"There are no images in {folder}."
        raise FileNotFoundError(msg)
    return (Source(path, path, path.relative_to(folder)) for path in paths)


def _of_file(path: Path) -> Iterator[Source]:
    if path.suffix.lower() in VIDEOS:
        return _frames(path)
    if path.suffix.lower() in LISTS:
        return _lines_of(path)
    if path.suffix.lower() == PARQUET:
        return _cells_of(path)
    return iter([Source(path, path, PurePath(path.name))])


def _lines_of(path: Path) -> Iterator[Source]:
    with path.open(encoding="utf-8") as lines:
        yield from _listed(lines, path.parent)


def _cells_of(path: Path) -> Iterator[Source]:
    """The images of a Parquet file, a batch of paths in memory at a time.

    Raises:
        ValueError: If it is none, or has no paths.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        msg = f"{path} is no Parquet file, or is damaged."
        raise ValueError(msg) from error
    kinds = {entry.name: entry.type for entry in table.schema_arrow}
    if kinds.get("path") not in {pa.string(), pa.large_string()}:
        msg = f"{path} has no column of text 'path'; it has {', '.join(kinds) or 'none'}. Call that of the paths so."
        raise ValueError(msg)
    for batch in table.iter_batches(columns=["path"]):
        yield from _listed((str(name) for name in batch.column(0).to_pylist() if name), path.parent)


def _listed(lines: Any, folder: Path) -> Iterator[Source]:
    for line in lines:
        name = line.rstrip("\r\n")
        if name:
            path = folder / Path(name).expanduser()
            yield Source(path, path, PurePath(name))


def _frames(path: Path) -> Iterator[Source]:
    """The frames of a video, numbered from 1."""
    import cv2

    film = cv2.VideoCapture(str(path))
    try:
        if not film.isOpened():
            msg = f"{path} is no video that OpenCV can read."
            raise ValueError(msg)
        number = 0
        while True:
            more, frame = film.read()
            if not more:
                return
            number += 1
            place = path.with_name(f"{path.name}#{number:06d}")
            picture = Picture(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), place)
            yield Source(picture, place, PurePath(path.stem) / f"{number:06d}")
    finally:
        film.release()
