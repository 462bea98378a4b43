"""Images on their way from the inspector to the record: files that change meanwhile, pauses, and an end by force."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest

from anomalib_clipad.images.content import digest_of
from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.inspection.records import read_results
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.inspection.run import inspect_all
from anomalib_clipad.inspection.sources import Source


class Inspector:
    """Finds the same in all images, and lets something happen while it looks."""

    def __init__(self, *happens: Callable[[], object]) -> None:
        self._happens = list(happens)

    def stream(self, images: Iterable[Any], _fail: object) -> Iterator[Finding]:
        grey = np.full((8, 8), 0.25, np.float32)
        for image in images:
            if self._happens:
                self._happens.pop(0)()
            if image is not None:
                yield Finding(np.zeros((8, 8, 3), np.uint8), 0.25, False, 0.5, grey, (), path=image)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_text("one")
    return tmp_path / "a.png"


def source(file: Path) -> Source:
    return Source(file, file, PurePath(file.name), file)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take their time."""
    draw = Results.draw
    monkeypatch.setattr(Results, "draw", lambda *what: time.sleep(0.3) or draw(*what))


def test_a_watched_file_that_is_written_while_it_is_looked_at_waits_for_the_next_look(
    tmp_path: Path, file: Path
) -> None:
    def given() -> Iterator[Source | None]:
        yield source(file)
        yield None
        yield source(file)

    with Results(tmp_path / "out", masks=True, grows=True) as results:
        inspect_all(Inspector(lambda: file.write_text("three")), given(), results)  # type: ignore[arg-type]
    (result,) = read_results(tmp_path / "out")
    assert result.file is not None
    assert result.file.digest == digest_of(file)
    assert [path.stem for path in (tmp_path / "out/masks").iterdir()] == [result.name]


def test_a_file_that_is_written_while_it_is_looked_at_is_looked_at_when_the_run_is_resumed(
    tmp_path: Path, file: Path
) -> None:
    with Results(tmp_path / "out") as results:
        inspect_all(Inspector(lambda: file.write_text("three")), [source(file)], results)  # type: ignore[arg-type]
    for again in (True, False):
        with Results(tmp_path / "out", resume=True) as results:
            assert results.wants(file, str(file), file) is again
            inspect_all(Inspector(), [source(file)], results)  # type: ignore[arg-type]
            assert results.finish().images == 1


@pytest.mark.usefixtures("slowly")
def test_before_a_pause_all_is_written(tmp_path: Path, file: Path) -> None:
    def written() -> None:
        assert len(list(read_results(tmp_path / "out"))) == 1

    with Results(tmp_path / "out", masks=True, grows=True) as results:
        inspect_all(Inspector(lambda: None, written), [source(file), None], results)  # type: ignore[arg-type]


@pytest.mark.usefixtures("slowly")
def test_what_was_found_before_the_end_is_written(tmp_path: Path, file: Path) -> None:
    def given() -> Iterator[Source]:
        yield source(file)
        raise KeyboardInterrupt

    with Results(tmp_path / "out", masks=True) as results, pytest.raises(KeyboardInterrupt):
        inspect_all(Inspector(), given(), results)  # type: ignore[arg-type]
    assert len(list(read_results(tmp_path / "out"))) == 1
