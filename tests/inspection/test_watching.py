"""A watched folder: what is still being written is waited for, and what is written again counts again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anomalib_clipad.inspection.sources import Source
from anomalib_clipad.inspection.watching import watch

STILL, OFTEN = 0.3, 0.02


@pytest.fixture
def arrived(tmp_path: Path) -> Iterator[Source | None]:
    return watch(tmp_path, STILL, OFTEN)


def one(arrived: Iterator[Source | None]) -> Source:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (source := next(arrived)) is not None:
            return source
    pytest.fail("nothing came")


def quiet(arrived: Iterator[Source | None], seconds: float) -> bool:
    """Whether nothing comes for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if next(arrived) is not None:
            return False
    return True


def test_a_file_counts_once_it_has_been_still(tmp_path: Path, arrived: Iterator[Source | None]) -> None:
    """Its size is what it will be from the start, as of a BMP whose pixels come later."""
    late, content = tmp_path / "late.bmp", bytes(range(1, 101))

    def write_slowly() -> None:
        with late.open("wb") as file:
            file.truncate(len(content))
            for byte in range(0, len(content), 10):
                file.write(content[byte : byte + 10])
                file.flush()
                time.sleep(STILL / 3)

    thread = threading.Thread(target=write_slowly)
    thread.start()
    source = one(arrived)
    assert (source.path, source.name.as_posix(), source.file) == (late, "late.bmp", late)
    assert late.read_bytes() == content
    thread.join()
    assert quiet(arrived, 3 * STILL)


def test_what_is_there_already_comes_in_order(tmp_path: Path, arrived: Iterator[Source | None]) -> None:
    for name in ("sub/a.png", "b.png", "a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [one(arrived).name.as_posix() for _ in range(3)] == ["a.png", "b.png", "sub/a.png"]


def test_what_is_written_again_counts_again(tmp_path: Path, arrived: Iterator[Source | None]) -> None:
    file = tmp_path / "latest.png"
    file.write_text("one")
    assert one(arrived).path == file
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_text("two")  # of the same size
    os.utime(file, ns=times)  # and with the same time
    assert one(arrived).path == file
    file.unlink()
    assert quiet(arrived, 2 * STILL)
    file.write_text("one")
    assert one(arrived).path == file


def test_a_link_that_leads_nowhere_is_no_secret(tmp_path: Path, arrived: Iterator[Source | None]) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "elsewhere.png")
    assert one(arrived).path == tmp_path / "gone.png"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        next(watch(tmp_path / "none"))
