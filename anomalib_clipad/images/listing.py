"""The image files of a folder and its subfolders, each once, and none that an inspection has written."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from anomalib_clipad.images.formats import HEAD, SUFFIXES, kind_of
from anomalib_clipad.storage import UNFINISHED

RUN_FILE, RUN_FORMAT = "run.json", "anomalib_clipad inspection"
"""What makes a folder the output folder of an inspection: this file, and how its ``format`` begins."""
FILMS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})
_NO_IMAGES = frozenset(
    (  # noqa: SIM905  # as a list it has a line for each
        ".txt .lst .csv .tsv .json .jsonl .yaml .yml .toml .ini .cfg .md .rst .py .ipynb .js .css .xml .html .htm .log "
        ".parquet .npy .npz .pt .pth .ckpt .onnx .bin .safetensors .zip .gz .tar .pdf .eps .svg "
        ".part .partial .filepart .tmp .temp .download .crdownload"
    ).split()
)
"""Files that are not looked into, since their names say that they are something else, or still being written."""


def is_output(folder: str | os.PathLike[str]) -> bool:
    """Whether an inspection writes, or has written, to a folder."""
    try:
        about = json.loads((Path(folder) / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and str(about.get("format")).startswith(RUN_FORMAT)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder of that name; of one that is too long, ``Path.is_dir`` would raise."""
    return os.path.isdir(path)  # noqa: PTH112


def files_in(folder: Path) -> list[Path]:
    """The image files of a folder and its subfolders, in the order of their names; see ``walk``.

    Raises:
        FileNotFoundError, ValueError: As of ``check_folder``.
    """
    check_folder(folder)
    return [path for path, _ in walk(folder)]


def check_folder(folder: Path) -> None:
    """Check that images of a folder can be looked at.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is the output folder of an inspection.
    """
    if not is_folder(folder):
        msg = f"There is no folder {folder}."
        raise FileNotFoundError(msg)
    if is_output(folder):
        raise ValueError(refusal(folder))


def refusal(folder: Path) -> str:
    """Why an output folder has no images to offer."""
    return (
        f"{folder} is the output folder of an inspection ({RUN_FILE} says so), and what was written there is never "
        "looked at. Name the folder of the images, or single files."
    )


def walk(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """The images of a folder and its subfolders, in the order of their names.

    Links are followed. A file counts once, by the first of its names. Output folders of inspections and unfinished
    folders are passed over, and so are films, with one warning. A file is an image by the end of its name, or by its
    first bytes where its name says nothing of it. Hidden files go by their names alone, and ``._name``, in which macOS
    keeps notes on a file, is none. Links that lead nowhere and folders that cannot be opened are listed as images are,
    so that whoever reads them is told why that is not possible.

    Yields:
        The path of a file, and the real file that it leads to; ``None`` where that is nothing.
    """
    given: set[str] = set()
    films = 0
    film = None
    for entry in _entries(folder):
        suffix = os.path.splitext(entry.path)[1].lower()  # noqa: PTH122  # of so many files, it matters
        if entry.kind == "folder" or entry.real in given:
            continue
        if suffix in FILMS:
            films += 1
            film = film or entry.path
        elif entry.kind == "closed" or _is_image(entry, suffix):
            if entry.real is not None:
                given.add(entry.real)
            yield Path(entry.path), entry.real
    if film is not None:
        some = str(Path(film)) if films == 1 else f"{films} films, such as {Path(film)}"
        msg = f"Of a folder only images are looked at; passed over: {some}. Name a film itself to look at its frames."
        warnings.warn(msg, UserWarning, stacklevel=2)


def folders_in(folder: Path) -> Iterator[Path]:
    """A folder and its subfolders, links followed, each once; output folders and unfinished ones are passed over."""
    if not is_output(folder):
        yield folder
    for entry in _entries(folder):
        if entry.kind == "folder":
            yield Path(entry.path)


class _Entry(NamedTuple):
    """Something in a folder.

    Attributes:
        path: Where it is.
        real: The file or folder that it leads to.
        kind: ``closed`` is a folder that cannot be opened, ``nowhere`` a link that leads to nothing.
    """

    path: str
    real: str | None
    kind: Literal["file", "folder", "closed", "nowhere"]


def _entries(top: Path) -> Iterator[_Entry]:
    """All that is below a folder, in the order of names; a folder before what it holds, and each once."""
    visited: set[str] = set()

    def opened(path: str, real: str) -> Iterator[os.DirEntry[str]] | None:
        """The entries of a folder; ``None`` if it is not to be entered."""
        if real in visited:
            return None
        visited.add(real)
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: os.path.normcase(entry.name))
        if any(entry.name == RUN_FILE for entry in entries) and is_output(path):
            return None
        return iter(entries)

    start = os.path.realpath(top)
    try:
        pending = [(start, opened(str(top), start) or iter(()))]
    except OSError:
        yield _Entry(str(top), None, "closed")
        return
    while pending:
        place, entries = pending[-1]
        entry = next(entries, None)
        if entry is None:
            pending.pop()
            continue
        kind = _kind(entry)
        if kind == "folder" and not entry.name.startswith(UNFINISHED):
            real = os.path.realpath(entry.path)
            try:
                inside = opened(entry.path, real)
            except OSError:
                yield _Entry(entry.path, None, "closed")
                continue
            if inside is not None:
                yield _Entry(entry.path, real, "folder")
                pending.append((real, inside))
        elif kind == "file":
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(place, entry.name)  # noqa: PTH118
            yield _Entry(entry.path, real, "file")
        elif kind == "nowhere":
            yield _Entry(entry.path, None, "nowhere")


def _kind(entry: os.DirEntry[str]) -> Literal["file", "folder", "nowhere"] | None:
    """What an entry leads to; ``None`` if it is a device, a pipe or the like."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:  # a link that leads to itself
        pass
    return "nowhere" if entry.is_symlink() else None


def _is_image(entry: _Entry, suffix: str) -> bool:
    name = os.path.basename(entry.path)  # noqa: PTH119
    if name.startswith("._"):
        return False
    if suffix in SUFFIXES:
        return True
    if name.startswith(".") or suffix in _NO_IMAGES:
        return False
    if entry.kind == "nowhere":
        return True
    try:
        with open(entry.path, "rb", buffering=0) as file:  # noqa: PTH123
            return kind_of(file.read(HEAD)) is not None
    except OSError:
        return False
