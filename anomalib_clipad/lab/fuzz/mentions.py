"""Which files a run is to look at, by the rules of the documentation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple


class Mention(NamedTuple):
    """Something that a run is to look at.

    Attributes:
        text: What it is called.
        place: Its real file; ``None`` where there is none.
        named: Whether a user named it, or what it was to be in, himself and there is nothing.
    """

    text: str
    place: str | None
    named: bool = False


def mentions(inputs: Sequence[str], cwd: Path, began: str) -> list[Mention]:
    """What inputs name, each file once.

    Args:
        inputs: As users write them.
        cwd: Where they do.
        began: Where the run began, to which paths of tables are relative.
    """
    found: dict[str, Mention] = {}
    for entry in inputs:
        for text in _texts(entry, cwd):
            place = lead(text, str(cwd))
            called = text if str(cwd) == began else str(cwd / text)
            real = place if Path(place).is_file() else None
            found.setdefault(place, Mention(called, real, text == str(Path(entry))))
    return list(found.values())


def lead(text: str, began: str) -> str:
    """Where a path of a table leads to: a real file, or itself."""
    path = Path(os.path.abspath(Path(began, text)))  # noqa: PTH100  # a link that leads nowhere is itself
    return str(path.resolve() if path.exists() else path)


def _texts(entry: str, cwd: Path) -> list[str]:
    name, full = Path(entry), cwd / entry
    if "*" in entry:
        found = sorted(str(path if name.is_absolute() else path.relative_to(cwd)) for path in _matched(str(full)))
        return found or [str(name)]
    if full.is_dir():
        images = [(folder / file).relative_to(full) for folder, files in _below(full, set()) for file in files]
        return [str(name / image) for image in sorted(images)] or [str(name)]
    if name.suffix == ".txt":
        return [str(name.parent / line) for line in full.read_text(encoding="utf-8").splitlines()]
    return [str(name)]


def _matched(pattern: str) -> Iterator[Path]:
    before, double, after = pattern.partition("/**/")
    for path in map(Path, glob(before)):  # noqa: PTH207  # of an absolute pattern
        if not double:
            yield path
        elif path.is_dir():
            for folder, _ in _below(path, set()):
                yield from folder.glob(after)


def _below(folder: Path, visited: set[Path]) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those below it, with the files in them that a run looks at; each real folder once."""
    real = folder.resolve()
    if real in visited or (real / "run.json").exists():
        return
    visited.add(real)
    entries = sorted(folder.iterdir())
    yield folder, [one.name for one in entries if not one.is_dir() and (one.suffix == ".png" or not one.exists())]
    for one in entries:
        if one.is_dir() and not one.name.startswith(".unfinished-"):
            yield from _below(one, visited)
