"""One answer behind every door: each cell of the table is an equal verdict, or a refusal that says why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import doors
import numpy as np
import pytest
from asked import Answer, Answers, Asked, Refusal, truth
from rows import BFLOAT16, ROWS, UNEQUAL, Row
from table import PAGE, page

from anomalib_clipad.deploy.verification import MAP_TOLERANCE
from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.predictor import quick_start
from anomalib_clipad.verdicts.regions import find_regions

TOLERANCE = 1e-4
OF = {door.name: door for door in doors.DOORS}


def cells() -> Iterator[Any]:
    """Every row at every door."""
    for row in ROWS:
        for door in (OF[name] for name in row.doors):
            marks = [pytest.mark.slow] if door.slow else []
            if (row.what, door.name) in UNEQUAL:
                marks.append(pytest.mark.xfail(strict=True, reason=UNEQUAL[row.what, door.name]))
            yield pytest.param(row, door.name, id=f"{row.number}: {row.what}: {door.name}", marks=marks)


@pytest.fixture(scope="session")
def served() -> Iterator[ExitStack]:
    """What is started once: a cluster, a browser."""
    with ExitStack() as stack, patch.dict(os.environ, TRUST_REMOTE_CODE="1", RAY_worker_niceness="0"):
        yield stack


@cache
def cluster(stack: ExitStack) -> None:
    """Start a cluster."""
    pytest.importorskip("ray", reason="the extra `scale` is not installed")
    from anomalib_clipad.scale.cluster import cluster as started

    stack.enter_context(started(workers=1))


@cache
def browser(stack: ExitStack) -> None:
    """Start a browser."""
    if doors.find_chromium() is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    doors.BROWSER.append(stack.enter_context(doors.Browser()))


@pytest.fixture(scope="session")
def ask(served: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Ask a door a question, once for all rows that it is of."""

    @cache
    def asked(door: str, question: Asked) -> Answers:
        if door == "Ray":
            cluster(served)
        if door == "page":
            browser(served)
        place = tmp_path_factory.mktemp("door")
        with patch.object(quick_start, "_named", lambda _: True):  # the tiny model, too, starts quickly
            if question.earlier is not None:
                truth(question.earlier)
            return doors.answers(OF[door], question, place)

    return asked


@cache
def right(question: Asked) -> dict[str, Finding]:
    """What is right."""
    return truth(question)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("row", "door"), cells())
def test_a_cell_is_equal_or_a_refusal_that_says_why(row: Row, door: str, ask: Any) -> None:
    if (row.what, door) == (BFLOAT16, ".xml") and "BF16" not in capabilities():
        pytest.skip("this processor computes in no bfloat16")
    question = row.question(door)
    names = [one.name for one in question.images if one.name.startswith(row.images)]
    assert names
    found = ask(door, question)
    for name in names:
        said, sentence = found[name], row.refusal(door, name)
        if sentence is not None:
            assert isinstance(said, Refusal), f"{name}: {said}, and not a refusal"
            assert sentence in " ".join(said.split()), name
            continue
        assert isinstance(said, Answer), f"{name}: {said}"
        check(said, right(row.truth(door))[name], name, MAP_TOLERANCE if door == ".xml" else TOLERANCE)


def capabilities() -> list[str]:
    """Number formats of this processor, and more, as OpenVINO says."""
    from openvino import Core

    return list(Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def check(said: Answer, finding: Finding, name: str, of_map: float) -> None:
    """Check an answer, in all that it says, against the right one; map values by a tolerance of their own."""
    assert said.score == pytest.approx(finding.score, abs=TOLERANCE), name
    assert said.label is None or said.label == finding.label, name
    assert (said.p_value is None) == (finding.p_value is None), name
    if finding.p_value is not None:
        assert said.p_value == pytest.approx(finding.p_value, abs=1e-6), name
    assert finding.verdict is None or said.verdict == finding.verdict, name
    if said.map is not None:
        own = said.map.shape == finding.anomaly_map.shape
        np.testing.assert_allclose(said.map, finding.anomaly_map if own else finding.map, atol=of_map, err_msg=name)
    if said.mask is not None:
        mask = find_regions(finding.anomaly_map, finding.map_threshold).mask
        sure = np.abs(finding.anomaly_map - finding.map_threshold) > of_map
        assert (said.mask == mask)[sure].all(), name
    if said.count is not None:
        assert said.count == len(finding.regions), name
    if said.boxes is not None:
        assert said.boxes == [tuple(region.box) for region in finding.regions], name


def test_the_page_of_the_documentation_is_this_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/doors/table.py"


def test_rows_name_doors_that_there_are() -> None:
    for row in ROWS:
        assert set(row.refused) | set(row.doors) <= set(OF), row.what
    for what, door in UNEQUAL:
        assert door in OF
        assert what in {row.what for row in ROWS}
    assert Path(PAGE).is_file()
