"""What has to be in the tables of a run, said as briefly as can be, and without the code that writes them."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .world import calibration, mask, pixels, references

_CLOSE = 1e-5
_RATE, _MIDPOINT = 0.2, 0.5
LABELS = ("good", "defective")


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


class Row(NamedTuple):
    """A row of the record, as far as it says which image it is."""

    place: str
    digest: str
    path: str


@dataclass
class State:
    """What an output folder holds.

    Attributes:
        key: Of its run; empty if there is none.
        began: Where the run began.
        options: With which.
        rows: Of its record.
        failed: The files that its ``failed.csv`` leads to.
        ever: Which image, by place and content, has been in the record at any time.
    """

    key: str = ""
    began: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    ever: set[tuple[str, str]] = field(default_factory=set)


def mentions(inputs: Sequence[str], cwd: str, began: str) -> list[Mention]:
    """What inputs name, each file once.

    Args:
        inputs: As users write them.
        cwd: Where they do.
        began: Where the run began, to which paths of tables are relative.
    """
    found: dict[str, Mention] = {}
    for entry in inputs:
        for text in _texts(entry, cwd):
            place = lead(text, cwd)
            called = text if cwd == began else os.path.join(cwd, text)
            real = place if os.path.isfile(place) else None
            found.setdefault(place, Mention(called, real, text == str(Path(entry))))
    return list(found.values())


def lead(text: str, began: str) -> str:
    """Where a path of a table leads to: a real file, or itself."""
    path = os.path.abspath(os.path.join(began, text))
    return os.path.realpath(path) if os.path.exists(path) else path


def _texts(entry: str, cwd: str) -> list[str]:
    name, full = str(Path(entry)), os.path.join(cwd, entry)
    if "*" in name:
        before, double, after = full.partition("/**/")
        folders = [one for base in glob.glob(before) for one, _ in _below(base, set())] if double else []
        every = [path for one in folders for path in glob.glob(os.path.join(one, after))] if double else glob.glob(full)
        cut = 0 if os.path.isabs(name) else len(os.path.join(cwd, ""))
        return sorted(path[cut:] for path in every) or [name]
    if os.path.isdir(full):
        images = [os.path.join(one, file) for one, files in _below(full, set()) for file in files]
        return _in_order([os.path.join(name, os.path.relpath(image, full)) for image in images]) or [name]
    if name.endswith(".txt"):
        return [str(Path(name).parent / line) for line in Path(full).read_text().splitlines()]
    return [name]


def _in_order(texts: list[str]) -> list[str]:
    return sorted(texts, key=lambda text: text.split("/"))


def _below(folder: str, visited: set[str]) -> Iterator[tuple[str, list[str]]]:
    """A folder and those below it, with the files in them that a run looks at; each real folder once."""
    real = os.path.realpath(folder)
    if real in visited or os.path.exists(os.path.join(real, "run.json")):
        return
    visited.add(real)
    files = []
    inside = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            inside += [] if name.startswith(".unfinished-") else list(_below(path, visited))
        elif name.endswith(".png") or not os.path.exists(path):
            files.append(name)
    yield folder, files
    yield from inside


def expected(state: State, given: Sequence[Mention], known: Mapping[str, int | None]) -> tuple[list[Row], set[str]]:
    """The record of a run that has come to its end, and the files of ``failed.csv``.

    Args:
        state: What there was.
        given: What it was to look at.
        known: Which image a content is; ``None`` is none.
    """
    last: dict[str, Row] = {}
    for row in state.rows:
        last.pop(row.place, None)
        last[row.place] = row
    places = {one.place for one in given}
    rows = [row for place, row in last.items() if place not in places]
    failed = state.failed - {place for place in places if place is not None}
    for one in given:
        digest = "" if one.place is None else digest_of(one.place)
        if one.place is None or known[digest] is None:
            failed.add(one.place or lead(one.text, state.began))
            continue
        before = last.get(one.place)
        same = before is not None and before.digest == digest
        rows.append(before if before is not None and same else Row(one.place, digest, one.text))
    return rows, failed


def refusals(state: State, options: Mapping[str, Any]) -> list[str]:
    """What has to be said of options that are not those of the run that is to be resumed; nothing if they are."""
    names = [name for name in state.options if name != "drift" and state.options[name] != options[name]]
    return [
        f"{name} holds other content than then"
        if name in {"calibration", "references", "ignore"} and None not in (state.options[name], options[name])
        else f"it had {'no' if state.options[name] is None else 'a'} {name}"
        if name in {"calibration", "references", "ignore"}
        else f"{name} was "
        for name in names
    ]


def wrong(row: Mapping[str, Any], state: State, known: Mapping[str, int | None]) -> str:
    """What is wrong with a line of the record; empty if nothing is."""
    number = known.get(row["file"]["digest"])
    if number is None:
        return f"{row['path']} is of a content that no image had"
    score, p_value, label = _judged(number, state.options)
    if abs(row["score"] - score) > _CLOSE:
        return f"{row['path']} has score {row['score']}; expected {score}"
    if (row["p_value"] is None) != (p_value is None) or abs((row["p_value"] or 0) - (p_value or 0)) > _CLOSE:
        return f"{row['path']} has p-value {row['p_value']}; expected {p_value}"
    if row["label"] != label:
        return f"{row['path']} is called {row['label']!r}; expected {label!r}"
    if row["decided"] != any(state.options[name] is not None for name in ("threshold", "calibration")):
        return f"of {row['path']} it is said that it is decided: {row['decided']}"
    return ""


def _judged(number: int, options: Mapping[str, Any]) -> tuple[float, float | None, str]:
    """Score, p-value and label of an image."""
    score, p_value = _score(number, options), None
    if options["calibration"] is not None:
        normal = [_score(one, options) for one in calibration(options["calibration"])]
        p_value = (1 + sum(one >= score for one in normal)) / (1 + len(normal))
    threshold = _MIDPOINT if options["threshold"] is None else options["threshold"]
    by_rate = p_value is not None and options["threshold"] is None
    defective = p_value <= _RATE if by_rate and p_value is not None else score > threshold
    return score, p_value, LABELS[defective]


def _score(number: int, options: Mapping[str, Any]) -> float:
    grey = pixels(number) / 255
    if options["references"] is not None:
        grey = np.abs(grey - np.mean([pixels(one) / 255 for one in references(options["references"])]))
    return float(grey.mean() if options["ignore"] is None else grey[~mask(options["ignore"])].max())


def digest_of(path: str | Path) -> str:
    """What tells the content of a file from others."""
    return blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
