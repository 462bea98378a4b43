"""From the record of a run to its page: where links lead, and what is told of the run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomalib_clipad.inspection import run_page
from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.inspection.page import About, PageRow
from anomalib_clipad.inspection.results import Results

ABOUT = {"decided": True, "decision": "threshold 0.5, as given", "notes": ["Look here."]}


class Page:
    """What pages were made of."""

    rows: tuple[PageRow, ...]
    about: About

    def write(self, folder: Path, rows: Iterable[PageRow], _title: str, _threshold: float, about: About) -> Path:
        self.rows, self.about = tuple(rows), about
        return folder


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    page = Page()
    monkeypatch.setattr(run_page, "write_page", page.write)
    return page


def written(folder: str, *paths: str, **options: Any) -> Results:
    image, heat = np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 0.25, np.float32)
    with Results(Path(folder), page="A run", about=ABOUT, **options) as results:
        for path in paths:
            results.add(Finding(image, 0.25, False, 0.5, heat, (), path=Path(path)), Path(Path(path).name))
    return results


def test_links_lead_to_the_files_from_wherever_the_page_is_written(
    tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parts").mkdir()
    named = os.fsdecode(b"parts/\xff.png")
    for name in ("parts/a.png", named):
        Path(name).write_text("image")
    written("runs/out", "parts/a.png", named, "parts/film.avi#000001")
    links = [row.image for row in page.rows]
    assert links == ["../../parts/a.png", f"../../{named}", None]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    written(str(tmp_path / "runs/out"), resume=True)
    assert [row.image for row in page.rows] == links


def test_the_page_says_what_the_run_says(page: Page) -> None:
    written("out")
    assert page.about == About(**ABOUT)
    assert page.rows == ()


def test_a_file_that_was_there_several_times_has_numbers(page: Page) -> None:
    written("watched", "a.png", "b.png", "a.png", grows=True)
    assert [row.path for row in page.rows] == ["a.png", "b.png", "a.png (2)"]
