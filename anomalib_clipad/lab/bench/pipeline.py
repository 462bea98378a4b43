"""What reading, deciding and writing cost beside the model alone: `inspect` of photographs in each runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from anomalib.deploy import CompressionType
from PIL import Image

from anomalib_clipad import ClipAD
from anomalib_clipad.data import GeneratedParts
from anomalib_clipad.images.picture import read
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.inspection.run import inspect_all
from anomalib_clipad.inspection.sources import find
from anomalib_clipad.parts.samples import named_sample

from .comparison import Comparison
from .timing import interleaved

_CLASS = "gear"
_COUNT = 128
_SIDE = 900
_KINDS = 16
"""How many of the photographs differ."""


def pipeline(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """Images a second of `inspect`, with tables, overlays and page, beside the model on images that are ready."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photographs = _photographs(folder / "photographs")
        for way, options in _models(backbone, folder).items():
            inspector = Inspector(batch_size=batch_size, **options)
            ready = [inspector.model.prepare(read(path)) for path in photographs]
            ways = {
                "inspect": partial(_inspect, inspector, folder / "photographs", folder / "results"),
                "alone": partial(_score, inspector, ready, batch_size),
            }
            seconds = interleaved(ways, min(repeats, 3))
            rates = {step: len(photographs) / taken for step, taken in seconds.items()}
            yield Comparison(f"inspect, {way}, images/s", rates["inspect"], "its model alone", rates["alone"])


def _photographs(folder: Path) -> list[Path]:
    folder.mkdir()
    pictures = [Image.fromarray(named_sample(_CLASS, "bench", i, None, 0, _SIDE).image) for i in range(_KINDS)]
    paths = [folder / f"{number:03d}.jpg" for number in range(_COUNT)]
    for number, path in enumerate(paths):
        pictures[number % _KINDS].save(path, quality=90)
    return paths


def _models(backbone: str, folder: Path) -> dict[str, dict[str, Any]]:
    """How an inspector is made for each runtime."""
    settings: dict[str, Any] = {"backbone": backbone}
    if backbone != "clipad-mini":
        settings["pretrained"] = None
    model = ClipAD(_CLASS, visualizer=False, **settings)
    data = GeneratedParts(category=_CLASS, train_batch_size=8, eval_batch_size=8, num_workers=0)
    int8: dict[str, Any] = {"compression_type": CompressionType.INT8_PTQ, "datamodule": data}
    with redirect_stdout(StringIO()):  # nncf has much to tell
        onnx, openvino = model.to_onnx(folder / "onnx"), model.to_openvino(folder / "openvino")
        compressed = model.to_openvino(folder / "int8", **int8)
    return {
        "torch": {"class_name": _CLASS, **settings},
        "onnxruntime": {"model": onnx},
        "OpenVINO": {"model": openvino, "precision": "f32"},
        "OpenVINO int8": {"model": compressed, "precision": "f32"},
    }


def _score(inspector: Inspector, ready: list[Any], batch_size: int) -> None:
    for start in range(0, len(ready), batch_size):
        inspector.model.score(ready[start : start + batch_size])


def _inspect(inspector: Inspector, images: Path, output: Path) -> None:
    with Results(output, overwrite=True, page="Benchmark") as results:
        inspect_all(inspector, find([str(images)]), results)
        results.finish()
