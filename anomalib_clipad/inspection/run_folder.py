"""Whose an output folder is: what a run may remove from it, and what has to be the same when it is resumed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalib_clipad.images.listing import RUN_FILE, RUN_FORMAT
from anomalib_clipad.storage import atomic_folder

from .lines import whole_lines
from .lock import LOCK_FILE
from .picture_files import FOLDERS, remove_pictures, remove_unfinished, tidy

NAMES = ".names"
"""Names of pictures, each written down before the first of its pictures is: they tell own files from others'."""
COCO_ENTRIES = ".coco.jsonl"
_RUN = RUN_FILE
_FORMAT = f"{RUN_FORMAT}, version 1"
_TABLES = ("results.csv", "regions.csv", "failed.csv", "results.parquet", COCO_ENTRIES, "coco.json", NAMES)
CHECKPOINTS, LISTED = ".checkpoints", ".images"
"""Folders of a run on a cluster: what is done, and what was to be done."""
_OWN = (*_TABLES, CHECKPOINTS, LISTED, "index.html", _RUN)
"""``run.json`` last: it says whose the others are."""


def take_folder(folder: Path, settings: Mapping[str, Any], overwrite: bool, resume: bool) -> bool:
    """Make a folder that of this run.

    Args:
        folder: A folder that is there, and that no other run writes to.
        settings: Of the run; plain data for JSON.
        overwrite: Remove what an earlier run has written.
        resume: Go on with an earlier run, if there is one.

    Returns:
        Whether there is an earlier run to go on with.

    Raises:
        FileExistsError: If it holds files that may not be removed.
        ValueError: If the earlier run had other settings.
    """
    earlier = _earlier(folder)
    if earlier is not None:
        remove_unfinished(folder)
    if resume and earlier is not None:
        _check_settings(folder, earlier, settings)
        return True
    held = sorted(entry.name for entry in folder.iterdir() if entry.name != LOCK_FILE)
    if held and not overwrite:
        what = f"other files, such as {held[0]}" if earlier is None else "results of an earlier run"
        way = "Overwrite what is of earlier runs," if earlier is None else "Resume it, overwrite it,"
        msg = f"{folder} holds {what}. {way} or name another folder."
        raise FileExistsError(msg)
    if earlier is not None:
        _remove_own(folder)
    for name in (*_OWN, *FOLDERS):
        if os.path.lexists(folder / name):
            msg = f"{folder / name} is not of an earlier run, and is never replaced. Name another folder."
            raise FileExistsError(msg)
    with atomic_folder(folder) as new:
        text = json.dumps({"format": _FORMAT, "settings": settings}, indent=2)
        (new / _RUN).write_text(f"{text}\n", encoding="utf-8")
    return False


def handed_out(folder: Path) -> set[str]:
    """The names under which pictures may have been written."""
    return {line.decode().rstrip("\n") for line in whole_lines(folder / NAMES)}


def _earlier(folder: Path) -> dict[str, Any] | None:
    """The settings of the run whose folder this is."""
    try:
        about = json.loads((folder / _RUN).read_text(encoding="utf-8"))
        return dict(about["settings"]) if about["format"] == _FORMAT else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _check_settings(folder: Path, earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    for name in sorted({*earlier, *settings}):
        before, now = earlier.get(name), settings.get(name)
        if before != now:
            msg = (
                f"The run in {folder} has {name} {before!r}, this one {now!r}. Resume it with the same settings, "
                "overwrite it, or name another folder."
            )
            raise ValueError(msg)


def _remove_own(folder: Path) -> None:
    tidy(folder, remove_pictures(folder, handed_out(folder)))
    for path in (folder / name for name in _OWN):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
