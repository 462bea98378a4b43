"""The fuzz of runs: it passes, says the same of the same seed, and notices what is planted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

import pytest

pytest.importorskip("anomalib_clipad.lab.fuzz.fuzz_runs", reason="runs are forked")

from anomalib_clipad.inspection import results
from anomalib_clipad.inspection.lines import Lines
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.lab.fuzz.fuzz_runs import fuzz, main

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")


def test_sequences_pass_and_repeat() -> None:
    told: list[str] = []
    counts = fuzz(15, 0, told.append)
    assert told == []
    assert counts["sequences"] == 15
    assert min(counts[what] for what in ("ends", "kills", "refusals")) > 5
    assert fuzz(1, 3, told.append) == fuzz(1, 3, told.append)
    assert told[0] == told[1]


def by_name_only(self: Results, path: PurePath, place: str, file: Any) -> bool:
    del file
    self._ranks.setdefault(place, len(self._ranks))
    return path.name not in {PurePath(one).name for one in self._seen}


def never_in_order(*_: Any) -> set[str]:
    return set()


@contextmanager
def careless(_: Any) -> Iterator[None]:
    yield


def without_repair(self: Lines, size: int) -> None:
    self.size = self._file.tell()


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (Results, "wants", by_name_only),
        (results, "put_in_order", never_in_order),
        (results, "folder_lock", careless),
        (Lines, "truncate", without_repair),
    ],
)
def test_a_planted_fault_is_noticed(owner: Any, name: str, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, name, fault)
    told: list[str] = []
    counts = Counter[str]()
    for seed in range(0, 60, 5):
        counts += fuzz(5, seed, told.append)
        if counts["faults"]:
            break
    assert told[0].startswith("seed ")
    assert "  1. run (new" in told[0]
    assert "  differs: " in told[0]


def test_the_command_ends_with_status_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Results, "wants", by_name_only)
    with pytest.raises(SystemExit, match="1"):
        main(sequences=20)
    assert " faults" in capsys.readouterr().out
