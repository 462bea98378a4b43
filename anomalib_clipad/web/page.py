"""A page that is the inspector: model, runtime, text vectors, normal images and scores in one HTML file."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.inspection.page import parts_of, policy
from anomalib_clipad.storage import atomic_folder
from anomalib_clipad.verdicts.normal_scores import NormalScores

from .runtime import BrowserRuntime

MAX_PIXELS = 40_000_000
"""Largest image that a page looks at, in pixels."""


@dataclass(frozen=True)
class PageClass:
    """What a page can look for.

    Attributes:
        name: What an image shows; ``None`` where the text has no share.
        text: Representative vectors (D, 2), where it has one.
        normal: Scores of normal images, where verdicts follow a false-alarm rate; with known defects and a miss rate
            there are three verdicts.
        inputs: Further inputs of the graph, by name: scalars or vectors.
    """

    name: str | None
    text: NDArray[np.float32] | None = None
    normal: NormalScores | None = None
    inputs: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class InspectorPage:
    """A page before it is written.

    Attributes:
        title: What it is called.
        about: Of the model, for those who want to know.
        model: ONNX, as ``page_graph`` makes it.
        size: Height and width of its maps.
        classes: What it can look for, the first one at first; one at least.
        threshold: Where the slider of the threshold begins.
        rate: Where that of the false-alarm rate begins.
        examples: Image files to try it with, by name.
        max_pixels: Larger images are refused.
    """

    title: str
    about: str
    model: bytes
    size: int
    classes: Sequence[PageClass]
    threshold: float = 0.5
    rate: float = 0.05
    examples: dict[str, bytes] = field(default_factory=dict)
    max_pixels: int = MAX_PIXELS

    def write(self, path: Path, runtime: BrowserRuntime) -> None:
        """Write the page, whole or not at all.

        Args:
            path: The HTML file.
            runtime: Of ``load_runtime``.

        Raises:
            OSError: If that is not possible.
        """
        html, style, script = parts_of(__package__, "inspector")
        blobs = {
            "settings": json.dumps(self._settings(), allow_nan=False).encode(),
            "script": runtime.script.encode(),
            "loader": runtime.loader,
            "wasm": runtime.wasm,
            "model": self.model,
        }
        elements = (  # data that the script finds by its id; gzip's checksum tells whether it is whole
            f'<script type="text/plain" id="{name}">{_base64(gzip.compress(content, 9, mtime=0))}</script>'
            for name, content in blobs.items()
        )
        values = {
            "policy": policy(style, script, "img-src blob: data:", " blob: 'wasm-unsafe-eval'"),
            "title": escape(self.title),
            "style": style,
            "script": script,
            "about": escape(f"{self.about} It runs in onnxruntime-web {runtime.version}, whose licence is:"),
            "licence": escape(runtime.licence),
            "blobs": "\n".join(elements),
        }
        with atomic_folder(path.parent) as folder:
            (folder / path.name).write_text(Template(html).substitute(values), encoding="utf-8", newline="\n")

    def _settings(self) -> dict[str, Any]:
        colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0, ::-1]
        return {
            "size": self.size,
            "threshold": self.threshold,
            "rate": self.rate,
            "max_pixels": self.max_pixels,
            "colours": _base64(colours.tobytes()),
            "classes": [_entry(one) for one in self.classes],
            "examples": [{"name": name, "content": _base64(file)} for name, file in self.examples.items()],
        }


def _entry(one: PageClass) -> dict[str, Any]:
    scores, peaks = (None, None) if one.normal is None else (values.tolist() for values in one.normal.bounds)
    text = None if one.text is None else _base64(np.ascontiguousarray(one.text, "<f4").tobytes())
    inputs = {name: values.tolist() for name, values in one.inputs.items()}
    entry = {"name": one.name, "text": text, "scores": scores, "peaks": peaks, "inputs": inputs}
    defects = None if one.normal is None or not one.normal.three else one.normal.defects
    return entry if defects is None else {**entry, "defects": defects.bounds[0].tolist(), "good": defects.rank}


def _base64(content: bytes) -> str:
    return b64encode(content).decode("ascii")
