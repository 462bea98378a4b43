"""The page that is the inspector in a real browser: size, time, difference from Python, and a picture of it.

``python -m anomalib_clipad.lab web-page-measure`` and ``web-page-picture``, for which Chromium has to be
installed; and ``web-page-demo folder``, a page for all generated categories.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from PIL import Image

from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.parts.categories import HELD_OUT_CATEGORIES
from anomalib_clipad.parts.defects import DEFECTS
from anomalib_clipad.parts.samples import named_sample
from anomalib_clipad.tools.page import page
from anomalib_clipad.tools.tables import markdown_table

from .browser import Browser, Tab

_CATEGORY = "bracket"
_SIDE = 512
_MINI = {"backbone": "clipad-mini"}
_LARGE = (4000, 3000)


class Figures(NamedTuple):
    """What a page takes; seconds.

    Attributes:
        megabytes: Its size.
        ready: From navigation until an image can be dropped.
        first: From the drop of a photograph of 512 x 512 pixels to its answer, the first time.
        again: The same, the second time.
        large: The same of 4000 x 3000 pixels.
        difference: Largest difference of these scores from Python's.
    """

    megabytes: float
    ready: float
    first: float
    again: float
    large: float
    difference: float


def measure(normal: Sequence[int] = (0, 4)) -> None:
    """Print what pages of clipad-mini take.

    Args:
        normal: Numbers of normal images in a page.
    """
    pages = []
    for number in normal:
        with tempfile.TemporaryDirectory() as name:
            pages.append(figures_of_page(Path(name), number))
    print(figures_table(normal, pages))


def figures_table(normal: Sequence[int], pages: Sequence[Figures]) -> str:
    """What pages take, as a Markdown table: a column each."""
    names = {
        "megabytes": "size, MB",
        "ready": "ready to look, s",
        "first": f"{_SIDE} x {_SIDE}, the first image, s",
        "again": f"{_SIDE} x {_SIDE}, the next, s",
        "large": "{} x {}, s".format(*_LARGE),
        "difference": "largest difference from Python's score",
    }
    columns = [("measured", ""), *((f"{number} normal images" if number else "text alone", ".3g") for number in normal)]
    return markdown_table(
        columns, [[names[name], *(getattr(page, name) for page in pages)] for name in Figures._fields]
    )


def figures_of_page(folder: Path, normal: int = 0) -> Figures:
    """Write a page to a folder, open it from there and drop images on it."""
    remembered = folder / "normal" if normal else None
    for number in range(normal):
        _save(folder / f"normal/{number}.png", "normal", number, None)
    photograph = _save(folder / "photograph.jpg", "test", 0, "crack")
    large = folder / "large.jpg"
    Image.open(photograph).resize(_LARGE).save(large, quality=90)
    place = folder / "inspector.html"
    page([_CATEGORY], place, _MINI, {"references": remembered} if normal else None)
    inspector = Inspector(_CATEGORY, backbone="clipad-mini", references=remembered)
    times, differences = [], []
    with Browser() as browser:
        tab = browser.tab()
        start = perf_counter()
        tab.go(place.as_uri())
        tab.until("document.body.dataset.state === 'ready'")
        ready = perf_counter() - start
        for image in (photograph, photograph, large):
            start = perf_counter()
            score = dropped(tab, image)
            times.append(perf_counter() - start)
            differences.append(abs(score - inspector.inspect(image).score))
    first, again, of_large = times
    return Figures(place.stat().st_size / 1e6, ready, first, again, of_large, max(differences))


def dropped(tab: Tab, image: Path) -> float:
    """Drop an image on the page, and read the score.

    Raises:
        RuntimeError: If the page refuses it; with what it says.
    """
    tab.evaluate("document.body.dataset.state = 'waiting'")
    tab.drop("#drop", str(image))
    tab.until("['done', 'failed'].includes(document.body.dataset.state)")
    if tab.evaluate("document.body.dataset.state") == "failed":
        raise RuntimeError(str(tab.evaluate("document.getElementById('status').textContent")))
    return float(tab.evaluate("document.getElementById('score').dataset.value"))


def picture(output: Path, category: str = _CATEGORY) -> None:
    """Save a picture of a page with a calibration that looks at a generated part.

    Args:
        output: PNG.
        category: A generated category.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(60):
            _save(folder / f"calibration/{number}.png", "calibration", number, None)
        for number, defect in enumerate((None, "crack", "scratch", "hole")):
            _save(folder / f"examples/{number}.jpg", "example", number, defect)
        place = folder / "inspector.html"
        page([category], place, _MINI, {"calibration": folder / "calibration"}, examples=folder / "examples")
        with Browser() as browser:
            tab = browser.tab(1040, 700)
            tab.go(place.as_uri())
            tab.until("document.body.dataset.state === 'ready'")
            tab.click("#examples button", 1)
            tab.until("document.body.dataset.state === 'done'")
            tab.settle()
            output.write_bytes(tab.screenshot())
    Image.open(output).convert("RGB").quantize(255, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        output, optimize=True
    )


def demo(folder: Path) -> None:
    """Write a page for the generated categories that clipad-mini was not trained on, with parts to try.

    Args:
        folder: Where ``inspector.html`` and the parts go.
    """
    for number, (category, defect) in enumerate(zip(HELD_OUT_CATEGORIES, cycle((*DEFECTS, None)), strict=False)):
        _save(folder / f"parts/{category}.jpg", "example", number, defect, category)
    page([*HELD_OUT_CATEGORIES], folder / "inspector.html", _MINI, examples=folder / "parts")


def _save(path: Path, split: str, number: int, defect: str | None, category: str = _CATEGORY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(named_sample(category, split, number, defect, 0, _SIDE).image).save(path, quality=92)
    return path
