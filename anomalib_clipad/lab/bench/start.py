"""How long one image takes from the start of the process: `anomalib-clipad inspect` beside `anomalib predict`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from anomalib_clipad.parts.samples import named_sample

from .comparison import Comparison
from .timing import interleaved

_MINI = "clipad-mini"


def start(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """The first score of clipad-mini: by name, of an exported .pt and of an exported ONNX file."""
    del backbone, batch_size
    from anomalib_clipad import ClipAD

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = folder / "image.png"
        Image.fromarray(named_sample("gear", "start", 0, None, 0, 240).image).save(image)
        model = ClipAD("gear", backbone=_MINI, visualizer=False)
        pt, onnx = model.to_torch(folder), model.to_onnx(folder)
        own = (
            "anomalib-clipad",
            "inspect",
            image,
            "--page",
            "false",
            "--overwrite",
            "true",
            "--output",
            folder / "out",
        )
        ways: dict[str, Callable[[], None]] = {
            "predict": partial(_run, "anomalib", "predict", "--model", "ClipAD", "--model.class_name", "gear",
                               "--model.backbone", _MINI, "--data", image),
            "a backbone by name": partial(_run, *own, "--class-name", "gear", "--backbone", _MINI),
            "an exported .pt": partial(_run, *own, "--model", pt),
            "an exported .onnx": partial(_run, *own, "--model", onnx),
        }  # fmt: skip
        seconds = interleaved(ways, min(repeats, 3))
    for way in list(ways)[1:]:
        yield Comparison(f"inspect, {way}, whole process, s", seconds[way], "anomalib predict", seconds["predict"])


def _run(program: str, *arguments: object) -> None:
    command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TRUST_REMOTE_CODE": "1"}
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
