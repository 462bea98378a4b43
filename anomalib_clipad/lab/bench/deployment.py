"""`python -m anomalib_clipad.lab deployment`: size, speed and metrics of each export format."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache, partial
from io import StringIO
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib.data import ImageBatch
from anomalib.deploy import CompressionType, ExportType
from anomalib.engine import Engine
from numpy.typing import NDArray

from anomalib_clipad import ClipAD
from anomalib_clipad.checks import check_counts
from anomalib_clipad.data import GeneratedParts
from anomalib_clipad.host.evaluator import SevenMetrics
from anomalib_clipad.host.statistics import required
from anomalib_clipad.metrics import METRICS, Metrics
from anomalib_clipad.tools.evaluation import quiet
from anomalib_clipad.tools.tables import Row, markdown_table

from .timing import interleaved

Predict = Callable[[NDArray[np.float32]], dict[str, Any]]


class Format(NamedTuple):
    """A file format, how it is compressed, and in what OpenVINO computes where it is not in int8."""

    kind: ExportType
    compression: CompressionType | None = None
    precision: str = "f32"


FORMATS: dict[str, Format | None] = {
    "torch": None,
    "ONNX": Format(ExportType.ONNX),
    "OpenVINO": Format(ExportType.OPENVINO),
    "OpenVINO run in bfloat16": Format(ExportType.OPENVINO, precision="bf16"),
    "OpenVINO fp16": Format(ExportType.OPENVINO, CompressionType.FP16),
    "OpenVINO int8 weights": Format(ExportType.OPENVINO, CompressionType.INT8),
    "OpenVINO int8 calibrated": Format(ExportType.OPENVINO, CompressionType.INT8_PTQ),
}
"""The formats compared; the first is the live model's."""


class Deployed(NamedTuple):
    """One exported model: its size in megabytes and how to run it on images (B, 3, H, W) in [0, 1]."""

    megabytes: float
    predict: Predict


def deployment(
    backbone: str = "clipad-mini",
    categories: list[str] | None = None,
    batch_size: int = 8,
    repeats: int = 5,
    threads: int = 2,
    formats: list[str] | None = None,
    k_shot: int | None = None,
    text_weight: float | None = None,
) -> None:
    """Export to every format, measure size, speed and metrics, and print a table.

    Args:
        backbone: CLIP model. With any but ``clipad-mini`` the weights are random and there are no metrics.
        categories: Generated categories of the metrics; by default gear and wood.
        batch_size: Images per batch.
        repeats: Runs of each format, in turns; medians are printed.
        threads: Threads of every runtime.
        formats: Which of torch, ONNX, OpenVINO, ...; by default all.
        k_shot: Number of normal pictures in the memory, with ``clipad-mini``; by default no memory.
        text_weight: Share of the text beside them.

    Raises:
        ValueError: If a format, a category or the backbone is unknown, or a number is below one.
    """
    check_counts(batch_size=batch_size, repeats=repeats, threads=threads)
    unknown = set(formats or []) - set(FORMATS)
    if unknown:
        msg = f"Unknown formats {sorted(unknown)}; expected some of {', '.join(FORMATS)}."
        raise ValueError(msg)
    logging.getLogger("nncf").setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    measured = backbone == "clipad-mini"
    options = {"k_shot": k_shot, "text_weight": text_weight} if measured else {"pretrained": None}
    modules = [
        GeneratedParts(category=category, train_images=k_shot or 1, eval_batch_size=batch_size)
        for category in categories or ["gear", "wood"][: 2 if measured else 1]
    ]
    metrics: dict[str, list[Metrics]] = {name: [] for name in FORMATS}
    with quiet(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        for data in modules:
            wanted = formats or list(FORMATS)
            models = _export_all(backbone, options, data, Path(folder) / data.category, threads, wanted)
            if measured:
                for name, model in models.items():
                    metrics[name].append(_metrics(model.predict, data))
        images = np.random.default_rng(0).random((batch_size, 3, 240, 240), np.float32)
        seconds = interleaved({name: partial(model.predict, images) for name, model in models.items()}, repeats)
        columns = [("format", ""), ("MB", ".1f"), ("images/s", ".1f"), ("of torch's", ".2f")]
        columns += [(metric, "+.4f") for metric in METRICS if measured]
        rows: list[Row] = [
            [
                name,
                model.megabytes,
                batch_size / seconds[name],
                seconds["torch"] / seconds[name],
                *_changes(metrics[name], metrics["torch"]),
            ]
            for name, model in models.items()
        ]
        print(markdown_table(columns, rows))


def _export_all(
    backbone: str, options: dict[str, Any], data: GeneratedParts, folder: Path, threads: int, formats: list[str]
) -> dict[str, Deployed]:
    model = ClipAD(backbone=backbone, visualizer=False, **options)
    engine = Engine(default_root_dir=folder, logger=False, enable_progress_bar=False, accelerator="cpu", devices=1)
    if backbone == "clipad-mini":
        engine.validate(model, datamodule=data, verbose=False)
    else:
        model.model.text_features.normal_()
        model.model.class_name = data.category
    tower = sum(value.numel() * 4 for value in model.model.detector.visual.parameters()) / 1e6
    deployed = {"torch": Deployed(tower, partial(_run_torch, model.deployed()))}

    @cache  # formats that differ in how they are run share a file
    def export(kind: ExportType, compression: CompressionType | None) -> Path:
        calibration = data if compression is CompressionType.INT8_PTQ else None
        root = folder / f"{kind.value}-{compression}"
        with redirect_stdout(StringIO()):
            path = engine.export(
                model, kind, root, datamodule=calibration, compression_type=compression, model_file_name="m"
            )
        return required(path, "path")

    for name, wanted in FORMATS.items():
        if wanted is None or name not in formats:
            continue
        kind, compression, precision = wanted
        path = export(kind, compression)
        size = sum(part.stat().st_size for part in path.parent.iterdir()) / 1e6
        run = _onnx(path, threads) if kind is ExportType.ONNX else _openvino(path, threads, precision)
        deployed[name] = Deployed(size, run)
    return deployed


def _run_torch(graph: torch.nn.Module, images: NDArray[np.float32]) -> dict[str, Any]:
    with torch.inference_mode():
        return dict(graph(torch.from_numpy(images))._asdict())


def _onnx(path: Path, threads: int) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"input": images}), strict=True))


def _openvino(path: Path, threads: int, precision: str) -> Predict:
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(path, "CPU", options)
    return lambda images: {output.any_name: value for output, value in compiled({"input": images}).items()}


def _metrics(predict: Predict, data: GeneratedParts) -> Metrics:
    data.setup()
    metrics: list[Any] = list(SevenMetrics().test_metrics)
    for batch in data.test_dataloader():
        output = predict(batch.image.numpy())
        found = ImageBatch(
            image=batch.image,
            gt_label=batch.gt_label,
            gt_mask=batch.gt_mask,
            pred_score=torch.as_tensor(output["pred_score"]),
            anomaly_map=_at_size(torch.as_tensor(output["anomaly_map"]), batch.gt_mask.shape[-2:]),
        )
        for metric in metrics:
            metric.update(found)
    return {str(metric.name): float(metric.compute()) for metric in metrics}


def _at_size(maps: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return torch.nn.functional.interpolate(maps[:, None], size=size, mode="bilinear")[:, 0]


def _changes(metrics: list[Metrics], reference: list[Metrics]) -> list[float]:
    """By how much the mean of each metric over the categories changed."""
    pairs = list(zip(metrics, reference, strict=True))
    return [mean(row[name] - base[name] for row, base in pairs) for name in METRICS if pairs]
