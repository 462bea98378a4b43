"""Whose an output folder is: what a run may remove from it, and what has to be the same when it is resumed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from anomalib_clipad.images.listing import RUN_FILE, RUN_FORMAT
from anomalib_clipad.storage import UNFINISHED, atomic_folder

from .lines import whole_lines
from .lock import LOCK_FILE
from .parts import PARTS
from .picture_files import FOLDERS, remove_pictures, remove_unfinished, tidy
from .records import RECORDS

NAMES = ".names"
"""Names of pictures, each written down before the first of its pictures is: they tell own files from others'."""
_VERSION = f"{RUN_FORMAT}, version 2"
LISTED = ".images"
"""Folder of a run on a cluster: what was to be done."""
_FORMER = (".coco.jsonl", ".checkpoints")
"""What runs of earlier versions have written besides."""
_TABLES = ("results.csv", "regions.csv", "failed.csv", "results.parquet", "coco.json", PARTS, RECORDS, NAMES)
_OWN = (*_TABLES, *_FORMER, LISTED, "index.html", RUN_FILE)
"""What runs have written; ``run.json`` last: it says whose the others are."""


class Run(NamedTuple):
    """What ``run.json`` says of a run.

    Attributes:
        settings: What was asked for; plain data for JSON.
        depends: Digests of what results depend on, by name, such as ``calibration``: contents, wherever they lie.
        about: What there is to say of its verdicts.
        folder: Where it was started; relative paths of its tables begin there.
        key: Tells it from all other runs.
    """

    settings: dict[str, Any]
    depends: dict[str, str]
    about: dict[str, Any]
    folder: str
    key: str


def new_run(settings: Mapping[str, Any], depends: Mapping[str, str], about: Mapping[str, Any]) -> Run:
    """A run that begins here and now."""
    first, second, third = json.loads(json.dumps([settings, depends, about]))
    return Run(first, second, third, str(Path.cwd()), uuid4().hex)


def read_run(folder: Path) -> Run | None:
    """The run whose folder this is; ``None`` if it is that of no run of this version."""
    about = _said(folder)
    return None if about.pop("format", "") != _VERSION else Run(**about)


def take_folder(folder: Path, run: Run, overwrite: bool, resume: bool) -> Run | None:
    """Make a folder that of this run.

    Args:
        folder: A folder that is there, and that no other run writes to.
        run: What to write to it.
        overwrite: Remove what an earlier run has written.
        resume: Go on with an earlier run, if there is one.

    Returns:
        The earlier run to go on with, if there is one.

    Raises:
        FileExistsError: If it holds files that may not be removed.
        ValueError: If the earlier run had other settings, or what it depends on has changed.
    """
    said = _said(folder)
    if resume and said:
        earlier = read_run(folder)
        if earlier is None:
            msg = f"The run in {folder} is of another version. Overwrite it, or name another folder."
            raise ValueError(msg)
        _check_same(folder, earlier, run)
        remove_unfinished(folder)
        return earlier
    own = (LOCK_FILE, UNFINISHED)
    held = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(own))
    if held and not overwrite:
        what = "results of an earlier run" if said else f"other files, such as {held[0]}"
        way = "Resume it, overwrite it," if said else "Overwrite what is of earlier runs,"
        msg = f"{folder} holds {what}. {way} or name another folder."
        raise FileExistsError(msg)
    remove_unfinished(folder)
    if said:
        _remove_own(folder)
    for name in (*_OWN, *FOLDERS):
        if os.path.lexists(folder / name):
            msg = f"{folder / name} is not of an earlier run, and is never replaced. Name another folder."
            raise FileExistsError(msg)
    with atomic_folder(folder) as new:
        text = json.dumps({"format": _VERSION, **run._asdict()}, indent=2)
        (new / RUN_FILE).write_text(f"{text}\n", encoding="utf-8")
    return None


def handed_out(folder: Path) -> set[str]:
    """The names under which pictures may have been written."""
    return {line.decode().rstrip("\n") for line in whole_lines(folder / NAMES)}


def _said(folder: Path) -> dict[str, Any]:
    """What ``run.json`` of any version says; nothing if it is not ours."""
    try:
        about = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        return dict(about) if about["format"].startswith(RUN_FORMAT) else {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _check_same(folder: Path, earlier: Run, run: Run) -> None:
    """Refuse to mix results.

    Raises:
        ValueError: If something is not what it was; the message says what, all of it.
    """
    told = [
        f"{name} was {_given(earlier.settings.get(name))} and is {_given(run.settings.get(name))}"
        for name in sorted({*earlier.settings, *run.settings})
        if earlier.settings.get(name) != run.settings.get(name)
    ]
    told += [
        f"{name} holds other content than then"
        if name in earlier.depends and name in run.depends
        else f"it had {'a' if name in earlier.depends else 'no'} {name}"
        for name in sorted({*earlier.depends, *run.depends})
        if earlier.depends.get(name) != run.depends.get(name)
    ]
    if told:
        msg = (
            f"The run in {folder} cannot be resumed, since results would be mixed: {'; '.join(told)}. Resume it with "
            "what it began with, overwrite it, or name another folder."
        )
        raise ValueError(msg)


def _given(value: Any) -> str:
    return "not given" if value is None else repr(value)


def _remove_own(folder: Path) -> None:
    (folder / RECORDS).unlink(missing_ok=True)  # first, for a record without its pictures could be gone on with
    tidy(folder, remove_pictures(folder, handed_out(folder)))
    for path in (folder / name for name in _OWN):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
