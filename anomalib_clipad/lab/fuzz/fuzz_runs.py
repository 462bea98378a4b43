"""`python -m anomalib_clipad.lab fuzz-runs`: what may happen to runs, at random, held against a model."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from anomalib_clipad.checks import check_count
from anomalib_clipad.inspection.lines import cells, whole_rows

from .agreement import disagreements, drift_disagreements
from .child import Child, Outcome, Trouble
from .mentions import Mention, lead, mentions
from .model import Row, State, expected, lines, refusals, wrong
from .world import World

_MOST_EVENTS = (12, 50, 170)
"""Of these one is drawn, and then an event up to it: beginnings are short, and have much that may go wrong."""
_MOST_LINES = 30
_COUNTED = ("sequences", "actions", "runs", "ends", "kills", "refusals", "second runs", "full disks")


class Fault(Exception):  # noqa: N818  # it is one
    """Something is otherwise than the model has it."""


class Sequence:
    """Some actions, drawn from a seed.

    Args:
        root: Empty folder.
        seed: Of all that is drawn.

    Attributes:
        actions: What has happened so far, in words.
        counts: How often what happened.
    """

    def __init__(self, root: Path, seed: int) -> None:
        self._rng = Random(seed)
        self._world = World(root, self._rng)
        self._state, self._fresh = State(), 0
        self.actions: list[str] = []
        self.counts = Counter[str]()

    def go(self) -> None:
        """Let things happen, and hold each run against the model.

        Raises:
            Fault: If one differs.
        """
        world = self._world
        changes: list[Callable[[], str]] = [
            *(world.add, world.replace, world.spoil, world.mend, world.mend),
            *(world.delete, world.touch, world.rename, world.copy),
            *(world.link_file, world.link_folder, world.move_input, world.move_output, world.move_self),
            *(world.change, world.change, world.change_back),
        ]
        self._run("new")
        for _ in range(self._rng.randint(2, 8)):
            if self._rng.random() < 0.5:
                self._run(self._rng.choices(["resume", "overwrite", "new"], [7, 2, 1])[0])
            else:
                self._happened(self._rng.choice(changes)() if world.files() else world.add())
        if self._state.key:
            world.options = dict(self._state.options)
        self._run("resume", calm=True)

    def _happened(self, what: str) -> None:
        self.counts["actions"] += 1
        self.actions.append(what)

    def _run(self, way: str, calm: bool = False) -> None:
        """A run, with or without trouble."""
        world, rng = self._world, self._rng
        inputs = world.inputs()
        if way == "new" and rng.random() < 0.7 and world.output.exists():
            self._fresh += 1
            world.output, self._state = world.root / f"out{self._fresh}", State()
        call = {
            **world.arguments(),
            "images": inputs,
            "output": Path(world.spelled(world.output)),
            "batch_size": rng.randint(1, 4),
            "resume": way == "resume",
            "overwrite": way == "overwrite",
        }
        kind = "calm" if calm else rng.choices(["calm", "kill", "full", "pause"], [4, 4, 1, 1])[0]
        trouble = None
        if kind in {"kill", "full", "pause"}:
            most = _MOST_LINES if kind == "pause" else rng.choice(_MOST_EVENTS)
            trouble = Trouble(kind, rng.randint(1, most))  # type: ignore[arg-type]
        told = "" if trouble is None else f", {trouble.kind} at event {trouble.event}"
        where = f"in {world.shown(world.cwd)}, to {call['output']}"
        self._happened(f"run ({way}{told}) of {inputs} {where}, options {world.options}")
        self._hold(call, trouble, rng.randrange(1 << 30))

    def _hold(self, call: dict[str, Any], trouble: Trouble | None, seed: int) -> None:
        """Run, and compare."""
        world, state, cwd = self._world, self._state, str(self._world.cwd)
        resumed = bool(call["resume"] and state.key)
        began = state.began if resumed else cwd
        state.failed = {lead(path, state.began) for path, _ in _failures(world.output)} if state.key else set()
        given = mentions(call["images"], world.cwd, began)
        before = _snapshot(world.root)
        with Child(call, world.cwd, seed, trouble) as child:
            outcome = child.outcome()
            if outcome.kind == "paused":
                self._second(call)
                outcome = child.outcome()
        self.counts["runs"] += 1
        if outcome.kind == "broken":
            raise Fault(outcome.message)
        refused = self._refusal(call, given, resumed)
        if refused is not None and outcome.kind == "done":
            msg = f"The run has ended well, which had to be refused, with {refused}"
            raise Fault(msg)
        full = trouble is not None and trouble.kind == "full" and "No space" in outcome.message
        if outcome.kind == "refused" and refused is not None and not full:
            self.counts["refusals"] += 1
            _check(
                f"the refusal does not say {part!r}: {outcome.message}"
                for part in refused
                if part not in outcome.message
            )
            _check(_changed(before, _snapshot(world.root), "a run that was refused"))
        elif outcome.kind == "refused" and not full:
            msg = f"The run was refused: {outcome.message}"
            raise Fault(msg)
        elif outcome.kind == "done":
            self.counts["ends"] += 1
            self._ended(call, given, resumed, outcome)
        else:
            self.counts["kills" if outcome.kind == "killed" else "full disks"] += 1
            self._interrupted(call, given)

    def _second(self, call: dict[str, Any]) -> None:
        """Another run in the same folder, while it is written to."""
        self.counts["second runs"] += 1
        before = _snapshot(self._world.root)
        with Child({**call, "resume": True, "overwrite": False}, self._world.cwd, 0) as child:
            second = child.outcome()
        if second.kind != "refused" or "Another run writes to" not in second.message:
            msg = f"The second of two runs at once ended so: {second}"
            raise Fault(msg)
        _check(_changed(before, _snapshot(self._world.root), "the second of two runs at once"))

    def _refusal(self, call: dict[str, Any], given: list[Mention], resumed: bool) -> list[str] | None:
        """What has to be said, if a run has to be refused."""
        world = self._world
        if all(one.place is None and one.named for one in given):
            return ["FileNotFoundError"]
        if resumed:
            return refusals(self._state, world.options) or None
        if call["overwrite"] or not self._state.key:
            return None
        return ["FileExistsError", "holds results of an earlier run"]

    def _ended(self, call: dict[str, Any], given: list[Mention], resumed: bool, outcome: Outcome) -> None:
        """Check all that there is after a run that has come to its end."""
        world = self._world
        earlier = self._state if resumed else State(began=str(world.cwd), options=dict(world.options))
        rows, failed = expected(earlier, given, world.known)
        self._look(earlier)
        state = self._state
        _check(_missing("rows", rows, state.rows))
        _check(_missing("failed.csv", sorted(failed), sorted(state.failed)))
        if outcome.status != (3 if failed else 0):
            msg = f"The exit status is {outcome.status}, with {len(failed)} files that failed."
            raise Fault(msg)
        _check(disagreements(world.output, state.options))
        _check(drift_disagreements(world.root / "state", state, call["written"]["drift"] is not None))

    def _interrupted(self, call: dict[str, Any], given: list[Mention]) -> None:
        """Check what there is after a run that was killed, or had no more space."""
        world, earlier = self._world, self._state
        said = self._said()
        same = bool(said) and said.get("key") == earlier.key
        self._look(earlier if same else State(began=str(world.cwd), options=dict(world.options)))
        state = self._state
        if not said and state.rows:
            msg = "There are rows of no run."
            raise Fault(msg)
        if not call["overwrite"] and earlier.key:
            superseded = {one.place for one in given}
            lost = [row for row in earlier.rows if row not in state.rows and row.place not in superseded]
            current, _ = expected(earlier, given, world.known)
            lost += [row for row in earlier.rows if row in current and row not in state.rows]
            _check([f"a row is lost: {row}" for row in lost])
            _check([f"{one} is no longer in failed.csv" for one in earlier.failed - state.failed - superseded])
        old = {(row.place, row.digest) for row in earlier.rows}
        possible = old | {(row.place, row.digest) for row in expected(State(began=state.began), given, world.known)[0]}
        found = [(row.place, row.digest) for row in state.rows]
        _check([f"a row that cannot be: {one}" for one in found if one not in possible])
        last: dict[str, str] = {}
        for place, digest in found:
            if last.get(place) == digest:
                msg = f"{place} is there twice"
                raise Fault(msg)
            last[place] = digest
        _check(drift_disagreements(world.root / "state", state, False))

    def _look(self, earlier: State) -> None:
        """Take what the folder holds for the state, once its rows are right."""
        said, folder = self._said(), self._world.output
        record = lines(folder / "results.jsonl")
        key, began = said.get("key", ""), said.get("folder", str(self._world.cwd))
        rows = [Row(row["file"]["place"], row["file"]["digest"], row["path"]) for row in record]
        ever = (earlier.ever if key == earlier.key else set()) | {(row.place, row.digest) for row in rows}
        self._state = State(key, began, earlier.options, rows, _failed(folder, began), ever)
        _check(filter(None, (wrong(row, self._state, self._world.known) for row in record)))

    def _said(self) -> dict[str, Any]:
        path = self._world.output / "run.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _failures(folder: Path) -> list[list[str]]:
    return [cells(row) for row in whole_rows(folder / "failed.csv")][1:]


def _failed(folder: Path, began: str) -> set[str]:
    """The files that the whole rows of ``failed.csv`` lead to."""
    rows = _failures(folder)
    found = [lead(path, began) for path, _ in rows]
    _check([f"{path} is in failed.csv without a reason" for path, reason in rows if not reason])
    _check([f"{one} is in failed.csv twice" for one, times in Counter(found).items() if times > 1])
    return {*found}


def _snapshot(root: Path) -> dict[str, bytes]:
    """All that lies below a folder, but locks."""
    found: dict[str, bytes] = {}
    for folder, _, names in os.walk(root):
        found[folder] = b""
        for name in names:
            path = Path(folder, name)
            if not name.endswith(".lock") and path.is_file():
                found[str(path)] = path.read_bytes()
    return found


def _changed(before: dict[str, bytes], after: dict[str, bytes], who: str) -> Iterator[str]:
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path):
            yield f"{who} has changed {path}"


def _missing(what: str, first: list[Any], second: list[Any]) -> Iterator[str]:
    if first != second:
        yield f"{what}: expected {first}; found {second}"


def _check(faults: Any) -> None:
    found = list(faults)
    if found:
        raise Fault("; ".join(found))


def fuzz(sequences: int, seed: int, tell: Callable[[str], None] = print) -> Counter[str]:
    """Go through sequences of actions.

    Args:
        sequences: How many.
        seed: Of the first; the next has the next.
        tell: What is done with what is to be said: of a fault the seed, the actions and what differs.

    Returns:
        How often what happened.
    """
    counts = Counter[str]()
    for number in range(seed, seed + sequences):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name).resolve()
            sequence, differs = Sequence(root, number), ""
            try:
                sequence.go()
            except Fault as fault:
                counts["faults"] += 1
                differs = f"\n  differs: {fault}"
            if differs or sequences == 1:
                actions = "".join(f"\n  {place}. {action}" for place, action in enumerate(sequence.actions, 1))
                tell(f"seed {number}:{actions}{differs}".replace(str(root), "ROOT"))
        counts += sequence.counts + Counter(sequences=1)
    return counts


def main(sequences: int = 500, seed: int = 0) -> None:
    """Let things happen to runs of `inspect`: each is held against a model of what has to be in the tables.

    Args:
        sequences: How many sequences of actions; of one, the actions are printed.
        seed: Of the first; the next has the next. `--seed 17 --sequences 1` repeats the one of seed 17.
    """
    check_count("sequences", sequences)
    if not hasattr(os, "fork"):
        msg = "Runs are forked so that they can be killed, which this system does not do; run it on Linux or macOS."
        raise OSError(msg)
    counts = fuzz(sequences, seed)
    print(", ".join(f"{counts[what]} {what}" for what in (*_COUNTED, "faults")))
    if counts["faults"]:
        sys.exit(1)
