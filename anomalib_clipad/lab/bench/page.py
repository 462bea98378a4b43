"""The page of results in a real browser: how quick it is with many images, and a picture of it.

``python -m anomalib_clipad.lab page-measure`` and ``page-picture``; Chromium has to be installed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.page import About, PageRow, heat_map, row_of, thumbnail, write_page
from anomalib_clipad.parts.defects import DEFECTS
from anomalib_clipad.parts.samples import named_sample
from anomalib_clipad.tools.tables import Row, markdown_table
from anomalib_clipad.verdicts.regions import find_regions

from .browser import Browser, Tab

_CATEGORY = "bracket"
_AFTER = """
const painted = () => new Promise(done => requestAnimationFrame(() => {
  const {port1, port2} = new MessageChannel();
  port1.onmessage = () => done(performance.now());
  port2.postMessage(0);
}));
"""
"""A promise of the time at which the next frame is ready; the wait for the frame is part of it."""


class Figures(NamedTuple):
    """How quick a page is; milliseconds in the browser.

    Attributes:
        megabytes: Size of the page.
        written: Seconds to write it, thumbnails given.
        first_paint: From navigation to the first contents: title, tools and an empty grid.
        tiles: From navigation to the first thumbnails.
        slider: From a move of the slider to the next frame, where labels and counts have changed: median and worst.
        search: From a change of the search to the next frame: median and worst.
        scroll: From a jump to elsewhere in the grid to the next frame: median and worst.
    """

    megabytes: float
    written: float
    first_paint: float
    tiles: float
    slider: tuple[float, float]
    search: tuple[float, float]
    scroll: tuple[float, float]


def measure(images: int = 5000) -> None:
    """Print how quick a page of many images is.

    Args:
        images: Number of images on it.
    """
    with tempfile.TemporaryDirectory() as name:
        figures = figures_of_page(Path(name), images)
    print(figures_table(figures))


def figures_table(figures: Figures) -> str:
    """How quick it is, as a Markdown table."""
    rows: list[Row] = [
        ["size, MB", figures.megabytes, math.nan],
        ["first paint", figures.first_paint, math.nan],
        ["first thumbnails", figures.tiles, math.nan],
        ["a move of the slider", *figures.slider],
        ["a change of the search", *figures.search],
        ["a jump to elsewhere in the grid", *figures.scroll],
    ]
    return markdown_table([("measured, ms", ""), ("median", ".0f"), ("worst", ".0f")], rows)


def figures_of_page(folder: Path, images: int) -> Figures:
    """Write a page of generated parts with random scores to a folder, open it in a browser and use it."""
    rows = list(_many(images))
    begin = perf_counter()
    page = write_page(folder, rows, "Generated parts", 0.5)
    written = perf_counter() - begin
    with Browser() as browser:
        tab = browser.tab()
        tab.go(page.as_uri())
        tab.settle()
        times = tab.evaluate(
            "[performance.getEntriesByName('first-contentful-paint')[0].startTime,"
            " performance.getEntriesByName('tiles')[0].startTime]"
        )
        slider = _times(tab, "slider.value = (step * 37) % 1000; slider.dispatchEvent(new Event('input'));")
        search = _times(tab, "search.value = String(step); search.dispatchEvent(new Event('input'));")
        tab.evaluate("search.value = ''; search.dispatchEvent(new Event('input'));")
        tab.settle()
        scroll = _times(tab, "scrollTo(0, document.body.scrollHeight * ((step * 37) % 100) / 100);")
    first_paint, tiles = times
    return Figures(page.stat().st_size / 1e6, written, first_paint, tiles, slider, search, scroll)


def _times(tab: Tab, action: str, repeats: int = 100) -> tuple[float, float]:
    times = tab.evaluate(
        f"""(async () => {{
            {_AFTER}
            const slider = document.getElementById("slider"), search = document.getElementById("search"), times = [];
            for (let step = 0; step < {repeats}; step += 1) {{
                const begin = performance.now();
                {action}
                times.push(await painted() - begin);
            }}
            return times;
        }})()"""
    )
    return median(times), max(times)


def _many(images: int) -> Iterator[PageRow]:
    rng = np.random.default_rng(0)
    kinds = islice(cycle([None, *DEFECTS]), 32)
    samples = [named_sample(_CATEGORY, "test", number, kind, 0, 320) for number, kind in enumerate(kinds)]
    maps = [np.asarray(cv2.GaussianBlur(one.mask.astype(np.float32), (0, 0), 8), np.float32) for one in samples]
    pictures = [
        (thumbnail(sample.image), heat_map(Finding(sample.image, 1, True, 0.5, found, find_regions(found, 0.5))))
        for sample, found in zip(samples, maps, strict=True)
    ]
    for number, both in enumerate(islice(cycle(pictures), images)):
        score = float(rng.beta(2, 5))
        small, heat = (picture + number.to_bytes(4, "big") for picture in both)  # none is kept for several
        name = f"camera {number % 3}/{number:06d}.png"
        yield PageRow(name, score, None, score > 0.5, small, f"images/{name}", heat_map=heat)


def picture(output: Path, category: str = _CATEGORY, good: int = 60, defective: int = 14) -> None:
    """Inspect generated parts with clipad-mini, show them on a page, and save a picture of it.

    Their threshold lets one in twenty good parts be called defective, by 60 other good parts.

    Args:
        output: PNG of the page with an image opened.
        category: A generated category.
        good: Number of flawless parts.
        defective: Number of defective parts.
    """
    with tempfile.TemporaryDirectory() as name:
        page = _inspected(Path(name), category, good, defective)
        with Browser() as browser:
            tab = browser.tab(1040, 650)
            tab.go(page.as_uri())
            tab.press("t")
            for _ in range(3):
                good = tab.evaluate("document.activeElement.title").startswith("good/")
                tab.press("2" if good else "1")  # all three are called defective
                tab.press("ArrowLeft")
            tab.evaluate("scrollTo(0, 0)")
            tab.press("h")
            tab.settle()
            above = tab.screenshot()
            for key in ("Home", "Enter", *["ArrowRight"] * 4):
                tab.press(key)
            tab.evaluate("Promise.all([...document.querySelectorAll('dialog img')].map(image => image.decode()))")
            tab.settle()
            top, bottom = tab.evaluate(
                "(() => { const box = document.querySelector('dialog').getBoundingClientRect();"
                " return [box.top, box.bottom]; })()"
            )
            below = tab.screenshot()
    _save(output, above, below, (int(top) - 8, int(bottom) + 8))


def _inspected(folder: Path, category: str, good: int, defective: int) -> Path:
    calibration = [named_sample(category, "calibration", number, None, 0, 480).image for number in range(60)]
    inspector = Inspector(category, backbone="clipad-mini", calibration=calibration, false_alarm_rate=0.05)
    kinds = [None] * good + [list(DEFECTS)[number % len(DEFECTS)] for number in range(defective)]
    names = [f"{kind or 'good'}/{number:03d}" for number, kind in enumerate(kinds)]
    images = (named_sample(category, "test", number, kind, 0, 480).image for number, kind in enumerate(kinds))
    findings = list(inspector.inspect(images))
    rows = [_row(folder, name, finding) for name, finding in zip(names, findings, strict=True)]
    about = About(decision=inspector.decision.text)
    return write_page(folder, rows, category.capitalize(), findings[0].threshold, about)


def _row(folder: Path, name: str, finding: Finding) -> PageRow:
    image, overlay, mask = (f"{kind}/{name}.png" for kind in ("images", "overlays", "masks"))
    white = np.repeat(finding.mask[..., None], 3, axis=2).astype(np.uint8) * 255
    for path, pixels in ((image, finding.image), (overlay, np.asarray(finding.overlay())), (mask, white)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())
    return row_of(finding, f"{name}.png", image=image, overlay=overlay, mask=mask)


def _save(output: Path, above: bytes, below: bytes, lines: tuple[int, int]) -> None:
    """Two screenshots, of the second only some lines, one below the other as a PNG of 255 colours."""
    grid, opened = (Image.open(BytesIO(shot)).convert("RGB") for shot in (above, below))
    opened = opened.crop((0, lines[0], opened.width, lines[1]))
    both = Image.new("RGB", (grid.width, grid.height + opened.height))
    both.paste(grid, (0, 0))
    both.paste(opened, (0, grid.height))
    both.quantize(255, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(output, optimize=True)
