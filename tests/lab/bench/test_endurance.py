"""Images and damaged files through `inspect`, in a process of its own."""

from pathlib import Path

import pytest

from anomalib_clipad.lab.bench.endurance import endure


@pytest.mark.slow
def test_damaged_files_are_listed_and_nothing_is_half_written(tmp_path: Path) -> None:
    options = ("--masks", "true", "--maps", "png", "--overlays", "all", "--coco", "true")
    outcome = endure(tmp_path, whole=6, damaged=80, options=options)
    assert outcome.results + outcome.failed == 86
    assert outcome.results >= 6
    assert outcome.failed >= 30
    assert (outcome.status, outcome.traceback, outcome.incomplete) == (3, False, 0)
    assert outcome.megabytes > 50
