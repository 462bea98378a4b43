"""The page of a run, from its record and thumbnails."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from .lines import as_given
from .page import About, PageRow, write_page
from .parts import Part, PartRule, summary_of
from .picture_files import HEAT_MAPS, THUMBNAILS
from .records import LABELS, Result, read_results
from .run_folder import read_run


def write_run_page(folder: Path, title: str, rule: PartRule | None = None, parts: Iterable[Part] = ()) -> Path:
    """Write ``index.html`` into the output folder of ``Results``; memory does not grow with the number of images.

    Args:
        folder: Output folder, written with thumbnails.
        title: What the page is called.
        rule: How parts are judged that several pictures show.
        parts: These parts.

    Raises:
        OSError: If it cannot be written.
    """
    run = read_run(folder)
    said = {} if run is None else run.about
    about = About(**{name: value for name, value in said.items() if name in About._fields})
    first = next(read_results(folder), None)
    threshold = None if first is None else _finite(first.threshold)
    start = Path() if run is None else Path(run.folder)
    times = Counter[str]() if run is not None and run.settings.get("grows") else None
    if rule is not None:
        about = about._replace(decision=" ".join([f"{about.decision.rstrip('.')}.", *summary_of(parts, rule.rate)]))
    part_of = _parts_said(rule, parts)
    rows = (_row(folder, result, start, times)._replace(part=part_of(result.path)) for result in read_results(folder))
    return write_page(folder, rows, title, 0.5 if threshold is None else threshold, about)


def _parts_said(rule: PartRule | None, parts: Iterable[Part]) -> Callable[[str], str | None]:
    """What there is to say of the part that the picture of a path shows, if it is one of a part."""
    said = {part.name: f"{part.name}: {part}" for part in parts}

    def of(path: str) -> str | None:
        found = None if rule is None else rule.names.of(path)
        return None if found is None else said.get(found[0])

    return of


def _row(folder: Path, result: Result, start: Path, times: Counter[str] | None) -> PageRow:
    """An image on the page.

    Args:
        folder: Of the run.
        result: What was found.
        start: Where relative paths begin.
        times: How often each path was met, where a file may be there several times.
    """
    path, name = result.path, result.name
    if times is not None:
        times[path] += 1
        path = path if times[path] == 1 else f"{path} ({times[path]})"
    return PageRow(
        path=path,
        score=_finite(result.score),
        p_value=_finite(result.p_value),
        label=result.label == LABELS[True],
        thumbnail=_small(folder / THUMBNAILS / f"{name}.jpg"),
        image=relative_to(start / as_given(result.path), folder),
        overlay=_written(folder, "overlays", name),
        mask=_written(folder, "masks", name),
        regions=len(result.regions),
        boxes=tuple(region.box for region in result.regions),
        size=(result.width, result.height),
        heat_map=_small(folder / HEAT_MAPS / f"{name}.jpg"),
        remark=result.remark,
        text_score=_finite(result.text_score),
        reference_score=_finite(result.reference_score),
        verdict=result.verdict,
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
