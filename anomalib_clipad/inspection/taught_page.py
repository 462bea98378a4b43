"""The report of a lesson: one page that needs neither script, server nor network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from anomalib_clipad.storage import atomic_folder

from .page import parts_of, policy

if TYPE_CHECKING:
    from .teaching import Judged, Lesson, Told

_NAME = "taught"


def write_lesson(path: Path, lesson: Lesson) -> Path:
    """Write the report of a lesson.

    Args:
        path: The file; replaced as a whole or not at all.
        lesson: What teaching has changed.

    Raises:
        OSError: If it cannot be written.
    """
    html, own = ((files(__package__) / f"{_NAME}.{kind}").read_text(encoding="utf-8") for kind in ("html", "css"))
    style = parts_of(__package__, "page")[1] + own
    rest = tuple(one for one in lesson.told if not one.changed)
    values = {
        "policy": policy(style, "", "img-src data:"),
        "style": style,
        "title": "What the model was taught",
        "sentences": "\n".join(f"<li>{escape(sentence)}</li>" for sentence in lesson.sentences()),
        "tables": _table("Verdicts that change", lesson.changed) + _table("Other ticked images", rest),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(path.parent) as folder:
        text = Template(html).substitute(values)
        (folder / path.name).write_text(text, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")
    return path


def _table(title: str, told: Sequence[Told]) -> str:
    if not told:
        return f"<h2>{title}: none</h2>\n"
    head = "".join(f"<th>{name}</th>" for name in ("image", "", "ticked", "before", "now"))
    rows = "\n".join(f"<tr>{_row(one)}</tr>" for one in told)
    return f"<h2>{title}: {len(told)}</h2>\n<table>\n<tr>{head}</tr>\n{rows}\n</table>\n"


def _row(one: Told) -> str:
    picture = f'<img alt="" src="data:image/jpeg;base64,{b64encode(one.thumbnail).decode()}">'
    cells = (picture, escape(one.path), escape(one.truth), _judged(one.before), _judged(one.after))
    return "".join(f"<td>{cell}</td>" for cell in cells)


def _judged(judged: Judged) -> str:
    return f'<span class="{judged.verdict or "open"}">{escape(str(judged))}</span>'
