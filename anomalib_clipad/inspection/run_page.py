"""The page of a run, from its tables and thumbnails."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .page import About, PageRow, write_page
from .picture_files import HEAT_MAPS, THUMBNAILS
from .tables import LABELS, read_results

_UNSAID = About()


def write_run_page(folder: Path, title: str, about: About = _UNSAID) -> Path:
    """Write ``index.html`` into the output folder of ``Results``; memory does not grow with the number of images.

    Args:
        folder: Output folder, written with thumbnails.
        title: What the page is called.
        about: What there is to say of the run.

    Raises:
        OSError: If it cannot be written.
    """
    first: dict[str, Any] = next(_records(folder), {})
    threshold = _finite(first.get("threshold"))
    rows = (_row(folder, record) for record in _records(folder))
    return write_page(folder, rows, title, 0.5 if threshold is None else threshold, about)


def _records(folder: Path) -> Iterator[dict[str, Any]]:
    """What is known of each image, in the order of the table."""
    return (result._asdict() for result in read_results(folder / "results.csv"))


def _row(folder: Path, record: dict[str, Any]) -> PageRow:
    name, path, regions = record["name"], record["path"], record["regions"]
    listed = [] if isinstance(regions, int) else regions
    return PageRow(
        path=path,
        score=_finite(record["score"]),
        p_value=_finite(record["p_value"]),
        label=record["label"] == LABELS[True],
        thumbnail=_small(folder / THUMBNAILS / f"{name}.jpg"),
        image=relative_to(Path(path), folder),
        overlay=_written(folder, "overlays", name),
        mask=_written(folder, "masks", name),
        regions=regions if isinstance(regions, int) else len(listed),
        boxes=tuple(tuple(region["box"]) for region in listed),
        size=(record["width"], record["height"]),
        heat_map=_small(folder / HEAT_MAPS / f"{name}.jpg"),
        remark=record.get("remark"),
        text_score=_finite(record.get("text_score")),
        reference_score=_finite(record.get("reference_score")),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _small(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def _written(folder: Path, kind: str, name: str) -> str | None:
    suffixes = (".jpg", ".png")
    return next((f"{kind}/{name}{end}" for end in suffixes if (folder / kind / f"{name}{end}").is_file()), None)


def relative_to(image: Path, folder: Path) -> str | None:
    """The way from a page in a folder to an image, if there is one: not to a frame of a video, nor to another drive."""
    if not image.is_file():
        return None
    try:
        return Path(os.path.relpath(image.absolute(), folder.absolute())).as_posix()
    except ValueError:
        return None
