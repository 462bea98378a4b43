"""The page of a run, from its tables and thumbnails."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from .page import PageRow, write_page
from .picture_files import THUMBNAILS
from .records import LABELS, read_results


def write_run_page(folder: Path, title: str) -> Path:
    """Write ``index.html`` into the output folder of ``Results``; memory does not grow with the number of images.

    Args:
        folder: Output folder, written with thumbnails.
        title: What the page is called.

    Raises:
        OSError: If it cannot be written.
    """
    threshold = next((result.threshold for result in read_results(folder)), 0.5)
    return write_page(folder, _rows(folder), title, threshold)


def _rows(folder: Path) -> Iterator[PageRow]:
    for result in read_results(folder):
        small = folder / THUMBNAILS / f"{result.name}.jpg"
        yield PageRow(
            path=result.path,
            score=1.0 if math.isnan(result.score) else result.score,
            p_value=result.p_value,
            label=result.label == LABELS[True],
            thumbnail=small.read_bytes() if small.is_file() else b"",
            image=relative_to(Path(result.path), folder),
            overlay=_written(folder, "overlays", result.name),
            mask=_written(folder, "masks", result.name),
            regions=len(result.regions),
        )


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
