"""The page of the playground, with gradio. No picture of an answer is a file: all travel inside the page."""

from __future__ import annotations

import json
import os
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from PIL import Image

from anomalib_clipad.extras import require
from anomalib_clipad.images.picture import Picture, UnreadableError, read
from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.parts.categories import HELD_OUT_CATEGORIES
from anomalib_clipad.parts.samples import named_sample

from .session import Question, Session, as_pixels, read_states

_REMEMBERED = 600
"""Seconds for which a tab's pixels stay in memory after its last answer."""
_EXAMPLES = {
    f"{name}, {defect or 'good'}": (name, defect) for name in HELD_OUT_CATEGORIES for defect in ("crack", None)
}
_FIRST = "bracket, crack"
_OWN = "own image"
_SIDE = 480
_CSS = """
.answer { display: flex; gap: 12px; flex-wrap: wrap; }
.answer figure { flex: 1 1 200px; margin: 0; min-width: 0; }
.answer img { width: 100%; display: block; border-radius: 6px; }
.answer figcaption { opacity: .7; font-size: .85em; }
.verdict { font-size: 1.3em; font-weight: 600; }
.problem { color: #b23a2e; font-weight: 600; }
"""


class Limits(NamedTuple):
    """What an upload may have.

    Attributes:
        megabytes: Of a file.
        pixels: Of an image.
        references: Normal images.
    """

    megabytes: float = 20
    pixels: int = 40_000_000
    references: int = 32


LIMITS = Limits()


def require_gradio() -> None:
    """Check that gradio is installed.

    Raises:
        ModuleNotFoundError: If it is not; the message names the extra that brings it.
    """
    require("The playground", "playground", "gradio")


@contextmanager
def served(
    session: Session, host: str = "127.0.0.1", port: int | None = None, limits: Limits = LIMITS
) -> Iterator[str]:
    """Serve the playground; what was uploaded is gone at the end, whatever happens.

    Args:
        session: Who answers.
        host: Address of this machine to listen at; by default nobody else's machine reaches it.
        port: By default a free one from 7860 on.
        limits: Of uploads.

    Yields:
        Its address.

    Raises:
        ModuleNotFoundError: If gradio is not installed.
        OSError: If the port is taken.
    """
    require_gradio()
    import gradio as gr

    fonts = ["system-ui", "sans-serif"]  # none is fetched
    with (
        tempfile.TemporaryDirectory(prefix="anomalib-clipad-playground-") as folder,
        patch.dict(os.environ, {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}),
    ):
        page = build(session, limits)
        try:
            _, address, _ = page.queue(default_concurrency_limit=1).launch(
                server_name=host,
                server_port=port,
                max_file_size=int(limits.megabytes * 2**20),
                prevent_thread_lock=True,
                share=False,
                quiet=True,
                ssr_mode=False,
                footer_links=[],
                theme=gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"]),
                css=_CSS,
                mcp_server=False,
            )
            yield address
        finally:
            page.close(verbose=False)


def build(session: Session, limits: Limits) -> Any:
    """The page, a ``gradio.Blocks``."""
    import gradio as gr

    with gr.Blocks(analytics_enabled=False, title="anomalib_clipad playground") as page:
        gr.Markdown(_introduction(session, limits))
        pixels = gr.State(time_to_live=_REMEMBERED)
        known = gr.State((), time_to_live=_REMEMBERED)
        with gr.Row():
            with gr.Column(scale=1):
                upload = gr.Image(
                    label="Image",
                    sources=["upload", "webcam", "clipboard"],
                    type="filepath",
                    height=200,
                    elem_id="upload",
                )
                upload.preprocess = _as_it_came  # type: ignore[method-assign]
                example = gr.Dropdown([*_EXAMPLES, _OWN], value=_FIRST, label="Example", elem_id="example")
                name = gr.Textbox(_EXAMPLES[_FIRST][0], label="What it shows", max_length=80, elem_id="name")
                with gr.Accordion("Prompts of your own", open=False):
                    good = gr.Textbox(label="Good: a state a line", placeholder="flawless {}", lines=3, elem_id="good")
                    bad = gr.Textbox(label="Defective", placeholder="{} with a scratch", lines=3, elem_id="bad")
                with gr.Accordion("Normal images to compare with", open=False):
                    normal = gr.File(
                        file_count="multiple", file_types=["image"], label="Normal images", elem_id="normal"
                    )
                    forget = gr.Button("Forget them", size="sm")
                    share = session.settings.get("text_weight", Question.text_weight)
                    weight = gr.Slider(0, 1, share, step=0.05, label="Share of the text")
                way = gr.Radio(["threshold", "false alarms"], value="threshold", label="Decide by", elem_id="way")
                threshold = gr.Slider(0, 1, 0.5, step=0.005, label="Threshold", elem_id="threshold")
                rate = gr.Slider(0.01, 0.5, 0.1, step=0.01, label="False-alarm rate", elem_id="rate")
                opacity = gr.Slider(0, 1, 1, step=0.05, label="Opacity of the map")
                look = gr.Button("Look", variant="primary", elem_id="look")
            with gr.Column(scale=2):
                answer = gr.HTML(elem_id="answer")
                command = gr.Code(label="The same on the command line", language="shell", interactive=False)
        controls = [example, name, good, bad, weight, way, threshold, rate, opacity]
        asked = _Asked(session, limits)
        shown: dict[str, Any] = {"outputs": [answer, command], "api_visibility": "private", "show_progress": "hidden"}
        again: dict[str, Any] = {"fn": asked.answer, "inputs": [pixels, known, *controls], **shown}
        look.click(**again)
        for slider in (threshold, rate, opacity, weight):
            slider.release(**again)
        for entry in (name, good, bad):
            entry.submit(**again)
        example.input(**again)
        way.input(**again)
        upload.input(asked.take, [upload], [upload, pixels, example, answer], api_visibility="private").success(**again)
        normal.upload(asked.compare, [normal, known], [normal, known, answer], api_visibility="private").success(
            **again
        )
        forget.click(lambda: ((), ""), None, [known, answer], api_visibility="private").success(**again)
    return page


def _as_it_came(payload: Any) -> Any:
    """The file of an upload, in place of gradio's copy of it in another format."""
    return None if payload is None else payload.path


class _Asked:
    """What happens where something is clicked, moved or dropped."""

    def __init__(self, session: Session, limits: Limits) -> None:
        self._session, self._limits = session, limits

    def take(self, file: str | None) -> tuple[Any, ...]:
        """Read an upload, and remove it."""
        import gradio as gr

        picture = next(iter(self._uploads([] if file is None else [file])), None)
        return None, picture, _OWN if picture is not None else gr.skip(), gr.skip()

    def compare(self, files: Sequence[str] | None, known: Sequence[Picture]) -> tuple[Any, ...]:
        """Read normal images, and remove them."""
        import gradio as gr

        both = (*known, *self._uploads(files or ()))
        if len(both) > self._limits.references:
            msg = f"At most {self._limits.references} normal images can be compared with here; got {len(both)}."
            raise gr.Error(msg, print_exception=False)
        return None, both, gr.skip()

    def _uploads(self, files: Sequence[str]) -> list[Picture]:
        import gradio as gr

        try:
            return [_read(file, self._limits) for file in files]
        except UnreadableError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def answer(self, own: Picture | None, known: Sequence[Picture], *controls: Any) -> tuple[str, str]:
        """The answer as markup, and the command."""
        example, name, good, bad, weight, way, threshold, rate, opacity = controls
        try:
            picture = own if example == _OWN else _example(example)
            if picture is None:
                msg = "Drop an image first, or choose an example."
                raise ValueError(msg)  # noqa: TRY301  # all that is wrong is told in one place
            by_rate = way == "false alarms"
            question = Question(
                name.strip(),
                read_states(good or ""),
                read_states(bad or ""),
                float(weight) if known else 0.5,
                None if by_rate else float(threshold),
                float(rate) if by_rate else None,
            )
            finding = self._session.answer(picture, known, question)
        except ValueError as error:
            return f'<p class="problem">{escape(str(error))}</p>', ""
        return _markup(finding, float(opacity)), self._session.command(question, "image.png", bool(known))


def _example(name: str) -> Picture:
    category, defect = _EXAMPLES[name]
    return Picture(named_sample(category, "playground", 0, defect, 0, _SIDE).image)


def _read(file: str, limits: Limits) -> Picture:
    """The pixels of an upload, whose file is removed."""
    path = Path(file)
    try:
        return read(path, max_pixels=limits.pixels)._replace(path=None)
    except UnreadableError as error:
        raise UnreadableError(str(error).replace(str(path), path.name)) from error
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()


def _markup(finding: Finding, opacity: float) -> str:
    pictures = {name: _address(pixels, "png") for name, pixels in as_pixels(finding, opacity).items()}
    figures = "".join(
        f'<figure><img alt="{name}" src="{address}"><figcaption>{name}</figcaption></figure>'
        for name, address in pictures.items()
    )
    label = "defective" if finding.label else "good"
    rare = "" if finding.p_value is None else f", p-value {finding.p_value:.3f}"
    boxes = "".join(
        f"<tr><td>{', '.join(map(str, region.box))}</td><td>{region.area}</td><td>{region.peak:.3f}</td></tr>"
        for region in finding.regions[:10]
    )
    table = f"<table><tr><th>left, top, width, height</th><th>pixels</th><th>peak</th></tr>{boxes}</table>"
    count = len(finding.regions)
    facts = b64encode(json.dumps(finding.to_dict(), indent=2).encode()).decode()
    return (
        f'<p class="verdict">{label}</p>'
        f'<p>score <output id="score" data-value="{finding.score!r}">{finding.score:.4f}</output>{rare}, '
        f"threshold {finding.threshold:.3f}, {count} {'region' if count == 1 else 'regions'}</p>"
        f'<div class="answer">{figures}</div>{table if finding.regions else ""}'
        f'<p><a id="download" download="map.png" href="{pictures["map"]}">Download the map</a> &middot; '
        f'<a download="mask.png" href="{pictures["mask"]}">the mask</a> &middot; '
        f'<a download="finding.json" href="data:application/json;base64,{facts}">the numbers</a></p>'
    )


def _address(pixels: np.ndarray, kind: str) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode()}"


def _introduction(session: Session, limits: Limits) -> str:
    offline = (
        "**Works offline**: clipad-mini is part of the package. It was trained on generated images only and is meant "
        "for trials; for real parts start the playground with another backbone."
        if session.backbone == "clipad-mini"
        else f"The model is {escape(session.backbone)}."
    )
    return (
        f"# Playground\n{offline} An upload is removed from the disk before it is answered; its pixels stay in memory "
        f"for the sliders, at most {_REMEMBERED // 60} minutes. Files of up to {limits.megabytes:g} MB and "
        f"{limits.pixels / 1e6:g} million pixels."
    )
