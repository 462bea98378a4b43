"""One run at a time holds a folder."""

import os
from pathlib import Path

import pytest

from anomalib_clipad.inspection import lock
from anomalib_clipad.inspection.lock import LOCK_FILE, folder_lock


def test_a_folder_is_held_once_and_free_again(tmp_path: Path) -> None:
    for _ in range(2):
        with folder_lock(tmp_path):
            assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"
            with pytest.raises(BlockingIOError, match=rf"process {os.getpid()}\)"), folder_lock(tmp_path):
                pass
        assert not (tmp_path / LOCK_FILE).exists()


def test_a_file_that_its_holder_has_just_removed_is_not_what_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its opening and its locking the holder before went: two runs would hold two files of one name."""
    path, again = tmp_path / LOCK_FILE, lock._lock

    def removed(file: object, folder: Path) -> None:
        monkeypatch.setattr(lock, "_lock", again)
        path.unlink()
        again(file, folder)

    monkeypatch.setattr(lock, "_lock", removed)
    with folder_lock(tmp_path):
        assert path.exists()
        with pytest.raises(BlockingIOError), folder_lock(tmp_path):
            pass
