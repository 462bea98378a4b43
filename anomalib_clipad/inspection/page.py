"""A page to look at: every image of a run in one HTML file that needs neither server nor network.

The page holds numbers and thumbnails; what a click opens lies beside it. It is made of ``page.html``, ``page.css`` and
``page.js``. Names of files are data in it, never markup or code, and its content security policy lets no other script,
style or address in.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from html import escape
from importlib.resources import files
from io import BytesIO
from itertools import islice
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalib_clipad.storage import atomic_folder

if TYPE_CHECKING:
    from .finding import Finding

PAGE = "index.html"
_BLOCK = 32
"""Rows that are written, and thumbnails that are read, together."""
_MOST_PICTURES = 400_000_000
"""Characters of small pictures in a page. Browsers open no page that is much larger; further tiles show files."""

Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels of the image."""


class About(NamedTuple):
    """What there is to say of a run.

    Attributes:
        decided: Whether its labels are verdicts; else its scores only sort images by suspicion.
        decision: Where its threshold comes from, or how to get one, in words.
        notes: What looks wrong with its calibration, in words.
        audit: Where the images of an audit come from; then none has a score, and each is ticked.
    """

    decided: bool = True
    decision: str = ""
    notes: tuple[str, ...] = ()
    audit: str = ""


_UNSAID = About()


class PageRow(NamedTuple):
    """An image on the page.

    Attributes:
        path: The name that is shown, searched and written to the file of ticks; unique.
        score: How abnormal the image is; ``None`` where it is no number.
        p_value: How rare such a score is among normal images, where the model is calibrated.
        label: Whether it is defective at the page's threshold; of no meaning where the run is not decided.
        thumbnail: JPEG, as ``thumbnail`` makes it; empty where there is none.
        image: Where the image is, relative to the page, as a path with slashes (not yet percent-encoded).
        overlay: Where its heat map is, likewise.
        mask: Where its mask is, likewise.
        regions: Number of defective regions.
        boxes: Around these regions, where they are known.
        size: Width and height of the image in pixels, where they are known.
        heat_map: JPEG, as ``heat_map`` makes it; empty where there is none.
        remark: What else there is to say of the image.
        text_score: Score of the text alone, where the model compares with images too.
        reference_score: Score of that comparison alone, likewise.
        truth: Whether it shows a defect, where that is known.
        part: The part that it shows and the verdict on that, where several pictures show one.
        verdict: ``good``, ``look`` or ``defective`` at the page's threshold, where there are three verdicts.
        digest: Of the file, in an audit.
    """

    path: str
    score: float | None
    p_value: float | None
    label: bool
    thumbnail: bytes
    image: str | None = None
    overlay: str | None = None
    mask: str | None = None
    regions: int = 0
    boxes: tuple[Box, ...] = ()
    size: tuple[int, int] | None = None
    heat_map: bytes = b""
    remark: str | None = None
    text_score: float | None = None
    reference_score: float | None = None
    truth: bool | None = None
    part: str | None = None
    verdict: str | None = None
    digest: str = ""


def row_of(finding: Finding, path: str, **more: Any) -> PageRow:
    """A finding on the page.

    Args:
        finding: What was found.
        path: What the image is called.
        **more: Where its files are, and what else there is to say of it; other fields of the row.
    """
    height, width = finding.image.shape[:2]
    return PageRow(
        path,
        finding.score,
        finding.p_value,
        finding.label,
        thumbnail(finding.image),
        verdict=finding.verdict,
        regions=len(finding.regions),
        boxes=tuple(region.box for region in finding.regions),
        size=(width, height),
        heat_map=heat_map(finding),
        **more,
    )


def write_page(
    folder: Path, rows: Iterable[PageRow], title: str, threshold: float | None, about: About = _UNSAID
) -> Path:
    """Write ``index.html``, whole or not at all.

    Rows are written as they come: memory does not grow with their number. The page sorts them by score, and equal
    scores as they come.

    Args:
        folder: Where the page goes; links are relative to it.
        rows: The images.
        title: What the page is called.
        threshold: Where the slider begins; ``None`` where images have thresholds of their own, such as parts that are
            calibrated one by one. Elsewhere an image counts as defective if its score is larger than the slider's.
        about: What there is to say of the run. If it is not decided, there is no threshold until the user sets one.

    Returns:
        The page.

    Raises:
        ValueError: If a score, a p-value or the threshold is not finite, or a link is not relative. Neither then nor
            when the rows raise is a page written; an earlier one stays.
        OSError: If it cannot be written.
    """
    if threshold is not None and not math.isfinite(threshold):
        msg = f"The threshold of a page has to be a finite number; got {threshold}."
        raise ValueError(msg)
    head, tail = _frame(title, threshold, about)
    with (
        atomic_folder(folder) as new,
        (new / PAGE).open("w", encoding="utf-8", errors="xmlcharrefreplace", newline="\n") as file,
    ):
        file.write(head)
        file.writelines(_blocks(rows))
        file.write(tail)
    return folder / PAGE


def thumbnail(image: NDArray[np.uint8], side: int = 160) -> bytes:
    """A small JPEG of an image, of the same proportions; never larger than the image.

    Args:
        image: RGB (H, W, 3).
        side: Pixels of the longer side.

    Raises:
        ValueError: If the image has another shape or type.

    Example:
        >>> small = thumbnail(np.zeros((900, 600, 3), np.uint8))
        >>> Image.open(BytesIO(small)).size
        (107, 160)
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        msg = f"A thumbnail is made of uint8 pixels (H, W, 3); got {image.dtype} of shape {image.shape}."
        raise ValueError(msg)
    return _jpeg(_small(image, side), 80)


def heat_map(finding: Finding, side: int = 160) -> bytes:
    """The thumbnail of a finding under its heat map, regions outlined, as JPEG.

    Args:
        finding: What was found.
        side: Pixels of the longer side.
    """
    return _jpeg(Image.fromarray(finding.small_overlay(np.asarray(_small(finding.image, side)))), 65)


def _small(image: NDArray[np.uint8], side: int) -> Image.Image:
    small = Image.fromarray(image)
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return small


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _frame(title: str, threshold: float | None, about: About) -> tuple[str, str]:
    """The page before its rows and after them."""
    html, style, script = parts_of(__package__, "page")
    more = "img-src 'self' file: data:; require-trusted-types-for 'script'; trusted-types 'none'"
    values = {
        "policy": policy(style, script, more),
        "title": escape(title),
        "settings": _json(
            {"title": title, "threshold": None if threshold is None else float(threshold), **about._asdict()}
        ),
        "style": style,
        "script": script,
    }
    head, tail = (Template(part).substitute(values) for part in html.split("$rows\n"))
    return head, tail


def parts_of(package: str, name: str) -> list[str]:
    """Markup, style and script of a page."""
    return [(files(package) / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")]


def policy(style: str, script: str, more: str, scripts: str = "") -> str:
    """A content security policy: this style, this script and what else is named; nothing from any address."""
    allowed = [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in (style, script)]
    own = f"style-src {allowed[0]}; script-src {allowed[1]}{scripts}"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'; {more}"


def _blocks(rows: Iterable[PageRow]) -> Iterator[str]:
    """Rows in blocks: the numbers as JSON, which are read at once, and the thumbnails, which are read when seen."""
    iterator = iter(rows)
    written = 0
    while block := list(islice(iterator, _BLOCK)):
        yield f'<script type="application/json" class="rows">{_json([_cells(row) for row in block])}</script>\n'
        for kind, small in (
            ("thumbnails", [row.thumbnail for row in block]),
            ("heat-maps", [row.heat_map for row in block]),
        ):
            lines = "\n".join(b64encode(file).decode() for file in small) if written < _MOST_PICTURES else ""
            written += len(lines)
            yield f'<script type="text/plain" class="{kind}">{lines}</script>\n'


def _cells(row: PageRow) -> list[object]:
    numbers = {
        "score": row.score,
        "p-value": row.p_value,
        "score of the text": row.text_score,
        "score of the references": row.reference_score,
    }
    for name, value in numbers.items():
        if value is not None and not math.isfinite(value):
            msg = f"The {name} of '{row.path}' has to be a finite number; got {value}."
            raise ValueError(msg)
    score, p_value, *eyes = (None if value is None else float(value) for value in numbers.values())
    links = [_link(path) for path in (row.image, row.overlay, row.mask)]
    marks = (row.boxes, row.size, row.remark, *eyes, row.truth, row.part, row.verdict, row.digest)
    return [row.path, score, p_value, int(row.label), int(row.regions), *links, *marks]


def _link(path: str | None) -> str | None:
    """A relative path as a URL; a colon is encoded too, so that none begins with a scheme."""
    if path is None:
        return None
    if path.startswith("/"):
        msg = f"Links of a page have to be relative to its folder; got '{path}'."
        raise ValueError(msg)
    return quote(path, errors="surrogateescape")


def _json(value: object) -> str:
    """JSON of ASCII characters that cannot end the script element it is in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
