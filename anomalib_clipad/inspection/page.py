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
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalib_clipad.storage import atomic_folder

PAGE = "index.html"
_BLOCK = 32
"""Rows that are written, and thumbnails that are read, together."""


class PageRow(NamedTuple):
    """An image on the page.

    Attributes:
        path: The name that is shown, searched and written to the file of ticks; unique.
        score: How abnormal the image is; finite.
        p_value: How rare such a score is among normal images, where the model is calibrated.
        label: Whether it is defective at the page's threshold.
        thumbnail: JPEG, as ``thumbnail`` makes it; empty where there is none.
        image: Where the image is, relative to the page, as a path with slashes (not yet percent-encoded).
        overlay: Where its heat map is, likewise.
        mask: Where its mask is, likewise.
        regions: Number of defective regions.
    """

    path: str
    score: float
    p_value: float | None
    label: bool
    thumbnail: bytes
    image: str | None = None
    overlay: str | None = None
    mask: str | None = None
    regions: int = 0


def write_page(folder: Path, rows: Iterable[PageRow], title: str, threshold: float) -> Path:
    """Write ``index.html``, whole or not at all.

    Rows are written as they come, in any order: memory does not grow with their number.

    Args:
        folder: Where the page goes; links are relative to it.
        rows: The images.
        title: What the page is called.
        threshold: Where the slider begins. Elsewhere an image counts as defective if its score is larger than the
            slider's.

    Returns:
        The page.

    Raises:
        ValueError: If a score, a p-value or the threshold is not finite, or a link is not relative. Neither then nor
            when the rows raise is a page written; an earlier one stays.
        OSError: If it cannot be written.
    """
    if not math.isfinite(threshold):
        msg = f"The threshold of a page has to be a finite number; got {threshold}."
        raise ValueError(msg)
    head, tail = _frame(title, threshold)
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
    small = Image.fromarray(image)
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    file = BytesIO()
    small.save(file, "JPEG", quality=80)
    return file.getvalue()


def _frame(title: str, threshold: float) -> tuple[str, str]:
    """The page before its rows and after them."""
    html, style, script = parts_of(__package__, "page")
    more = "img-src 'self' file: data:; require-trusted-types-for 'script'; trusted-types 'none'"
    values = {
        "policy": policy(style, script, more),
        "title": escape(title),
        "settings": _json({"title": title, "threshold": float(threshold)}),
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
    while block := list(islice(iterator, _BLOCK)):
        pictures = "\n".join(b64encode(row.thumbnail).decode() for row in block)
        yield f'<script type="application/json" class="rows">{_json([_cells(row) for row in block])}</script>\n'
        yield f'<script type="text/plain" class="thumbnails">{pictures}</script>\n'


def _cells(row: PageRow) -> list[object]:
    for name, value in (("score", row.score), ("p-value", row.p_value)):
        if value is not None and not math.isfinite(value):
            msg = f"The {name} of '{row.path}' has to be a finite number; got {value}."
            raise ValueError(msg)
    links = [_link(path) for path in (row.image, row.overlay, row.mask)]
    p_value = None if row.p_value is None else float(row.p_value)
    return [row.path, float(row.score), p_value, int(row.label), int(row.regions), *links]


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
