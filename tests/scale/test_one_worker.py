"""A run on a cluster whose only worker is this process: what is listed, written down, and told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from stand_ins import Brightness

from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.inspection.records import read_results
from anomalib_clipad.inspection.sources import find
from anomalib_clipad.scale.rows import found
from anomalib_clipad.scale.run import Cluster, inspect_on_cluster
from anomalib_clipad.verdicts.decision import Decision
from anomalib_clipad.verdicts.normal_scores import Limits, NormalScores

OUT = Path("out")


class Inspector:
    """Scores a file by its length; an empty one is no image."""

    ignored = None
    notes = ()
    audited = ()
    decision = Decision(Limits(0.5, 0.5))

    def __init__(self, normal: float = 0.1, then: Callable[[], object] = lambda: None) -> None:
        self.model = Brightness()
        self.model.keep_normal(NormalScores(np.full(3, normal), np.full(3, normal)))
        self._then, self.seen = then, list[str]()

    def stream(self, files: Iterable[Path], fail: Callable[[Path, ValueError], None]) -> Iterator[Finding]:
        for file in files:
            self.seen.append(file.name)
            score = len(file.read_bytes()) / 100
            self._then()
            if not score:
                fail(file, ValueError("it is empty"))
                continue
            remark = "it is long" if score > 0.5 else None
            heat = np.full((8, 8), score, np.float32)
            yield Finding(np.zeros((8, 8, 3), np.uint8), score, False, 0.5, heat, (), remark=remark, path=file)


@pytest.fixture
def inspect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Inspect the folder; the names of the files that were looked at."""

    def work(folder: Path, shipped: list[Any], *_: object) -> Iterator[pa.Table]:
        for file in sorted((folder / ".images").iterdir()):
            yield found(shipped[0], parquet.read_table(file))

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(put=lambda whole: whole))
    monkeypatch.setattr("anomalib_clipad.scale.run.cluster", lambda *_: nullcontext(1))
    monkeypatch.setattr("anomalib_clipad.scale.engine.run", work)
    Path("parts").mkdir()
    for number in range(4):
        Path(f"parts/{number}.png").write_bytes(bytes(number))

    def inspect(*entries: str, inspector: Inspector | None = None, **written: Any) -> list[str]:
        own: Any = inspector or Inspector()
        summary, _ = inspect_on_cluster(lambda _: own, find(entries), OUT, {}, Cluster(block=2), **written)
        assert summary.images == len(list(read_results(OUT)))
        return own.seen

    return inspect


def scores() -> dict[str, float]:
    return {result.path: result.score for result in read_results(OUT)}


def table() -> list[tuple[str, float | None, str | None]]:
    return [
        (row["path"], row["score"], row["error"]) for row in parquet.read_table(OUT / "results.parquet").to_pylist()
    ]


def test_what_is_found_and_what_is_not_is_in_one_table(inspect: Callable[..., list[str]]) -> None:
    inspect("gone.png", "parts")
    assert table() == [
        *((f"parts/{number}.png", number / 100, None) for number in (1, 2, 3)),
        ("gone.png", None, "There is no file or folder gone.png."),
        ("parts/0.png", None, "it is empty"),
    ]


def test_a_resumed_run_looks_at_what_is_new_and_at_nothing_twice(inspect: Callable[..., list[str]]) -> None:
    inspect("parts")
    Path("parts/0.png").write_bytes(bytes(9))
    Path("parts/2.png").write_bytes(b"")
    assert inspect("parts", resume=True) == ["0.png", "2.png"]
    assert scores() == {"parts/0.png": 0.09, "parts/1.png": 0.01, "parts/3.png": 0.03}
    assert [path for path, _, error in table() if error] == ["parts/2.png"]


def test_a_file_that_is_written_while_it_is_looked_at_is_looked_at_again(inspect: Callable[..., list[str]]) -> None:
    file = Path("parts/1.png")
    inspect(str(file), inspector=Inspector(then=lambda: file.write_bytes(bytes(7))))
    assert inspect(str(file), resume=True) == ["1.png"]
    assert scores() == {"parts/1.png": 0.07}


def test_another_calibration_is_refused(inspect: Callable[..., list[str]]) -> None:
    inspect("parts")
    with pytest.raises(ValueError, match="calibration holds other content than then"):
        inspect("parts", inspector=Inspector(0.2), resume=True)


def test_remarks_are_told_at_most_of_ten(inspect: Callable[..., list[str]]) -> None:
    for number in range(12):
        Path(f"parts/{number}.png").write_bytes(bytes(60))
    with pytest.warns(UserWarning, match="it is long") as told:
        inspect("parts")
    assert len(told) == 10
