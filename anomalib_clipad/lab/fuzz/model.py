"""What has to be in the tables of a run, said as briefly as can be, and without the code that writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .mentions import Mention, lead
from .world import calibration, mask, pixels, references

_CLOSE = 1e-5
_RATE, _MIDPOINT = 0.2, 0.5
LABELS = ("good", "defective")


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
