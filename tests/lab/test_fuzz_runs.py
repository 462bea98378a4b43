"""The fuzz of runs: it passes, says the same of the same seed, and notices what is planted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

import pytest

from anomalib_clipad.inspection import results
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.lab.fuzz.fuzz_runs import fuzz, main

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")


def test_sequences_pass_and_repeat() -> None:
    told: list[str] = []
    counts = fuzz(15, 0, told.append)
    assert told == []
    assert counts["sequences"] == 15
    assert min(counts[what] for what in ("ends", "kills", "refusals")) > 5, counts
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


@pytest.mark.parametrize(
    ("owner", "name", "fault"),
    [
        (Results, "wants", by_name_only),
        (results, "put_in_order", never_in_order),
        (results, "folder_lock", careless),
    ],
)
def test_a_planted_fault_is_noticed_and_repeated(
    owner: Any, name: str, fault: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(owner, name, fault)
    told: list[str] = []
    seed = next(seed for seed in range(100) if fuzz(1, seed, told.append)["faults"])
    assert told[-1].startswith(f"seed {seed}:\n  1. run (new")
    assert "\n  differs: " in told[-1]
    with pytest.raises(SystemExit, match="1"):
        main(sequences=1, seed=seed)
    said = capsys.readouterr().out
    assert said.startswith(told[-1])
    assert said.endswith(", 1 faults\n")
