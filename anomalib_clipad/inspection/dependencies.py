"""What the results of a run depend on, by content: a run is only resumed where all of it is the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_clipad.images.content import digest_of, digest_of_all
from anomalib_clipad.settings import path_in

if TYPE_CHECKING:
    from .inspector import Inspector

FILES = ("model", "product", "prompts", "adapter", "backbone", "pretrained")
"""What may be a file or, of a backbone, a folder: then its content counts, and not its name."""
FITTED = ("references", "calibration", "defects", "ignore", "mutual")
"""What an inspector was fitted to: that counts, and not the name of a folder."""


def plain(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, as JSON has it, without what ``depends_on`` has by content."""
    settings = {"version": version("anomalib-clipad")}
    for name, value in asked.items():
        if value is not None and name not in FITTED and _file(name, value) is None:
            settings[name] = str(value) if isinstance(value, Path) else value
    return settings


def depends_on(inspector: Inspector, asked: Mapping[str, Any], together: Iterable[str] = ()) -> dict[str, str]:
    """Digests of what an inspector's results depend on.

    Args:
        inspector: Fitted.
        asked: What it was made of: paths of files by the names of ``FILES``.
        together: The files of images that judge each other.
    """
    found = {name: _content(path) for name, value in asked.items() if (path := _file(name, value)) is not None}
    model = inspector.model
    fingerprint = getattr(getattr(model, "model", None), "fingerprint", None)
    if fingerprint is not None:
        found["weights"] = str(fingerprint)
    if model.references:
        found["references"] = digest_of_all(one.digest for one in model.references)
    normal = model.normal
    if normal is not None:
        known = [one["digest"] for one in normal.identities]
        found["calibration"] = digest_of_all(known or [normal.image_scores.tobytes(), normal.region_scores.tobytes()])
    defects = None if normal is None else normal.defects
    if defects is not None:
        known = [one["digest"] for one in defects.identities]
        found["defects"] = digest_of_all(known or [defects.image_scores.tobytes(), defects.region_scores.tobytes()])
    if inspector.ignored is not None:
        found["ignore"] = digest_of_all([repr(inspector.ignored.shape), np.packbits(inspector.ignored).tobytes()])
    if together:
        found["mutual"] = digest_of_all(digest_of(file) for file in together)
    return found


def about_of(inspector: Inspector, command: str) -> dict[str, Any]:
    """What there is to say of an inspector's verdicts, for terminal and page.

    Args:
        inspector: Fitted.
        command: What was called, to be called again with options that calibrate, where nothing does.
    """
    decision = inspector.decision
    text = decision.text if decision.decided else decision.sorting(f"run: {command} {decision.options} --overwrite")
    taught = inspector.model.taught
    more = [*inspector.audited, *([] if taught is None else [taught.sentence()])]
    said = " ".join([f"{text.rstrip('.')}.", *more]) if more else text
    return {"decided": decision.decided, "decision": said, "notes": list(inspector.notes)}


def _file(name: str, value: Any) -> Path | None:
    """The file or folder that a user names, if it is one."""
    if name not in FILES or not isinstance(value, (str, Path)):
        return None
    found = path_in(str(value))
    return None if found is None else found[1]


def _content(path: Path) -> str:
    """What a file holds, and the file of weights beside one of OpenVINO; of a folder, what its files are and hold."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return digest_of_all(part for file in files for part in (str(file.relative_to(path)), digest_of(file)))
    weights = path.with_suffix(".bin")
    beside = [weights] if path.suffix == ".xml" and weights.is_file() else []
    return digest_of_all(digest_of(one) for one in (path, *beside))
