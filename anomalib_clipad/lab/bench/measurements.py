"""The measurements of `python -m anomalib_clipad.lab bench`: values beside their peers', taken in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from lightning.pytorch.profilers import SimpleProfiler
from PIL import Image
from torch import Tensor
from torch.optim import Adam
from torch.utils.data import DataLoader

from anomalib_clipad.adaptors.base import Lesson
from anomalib_clipad.adaptors.losses import total
from anomalib_clipad.backbones import Backbone, load_backbone
from anomalib_clipad.lightning_model import ClipAD
from anomalib_clipad.text.cache import EmbeddingCache
from anomalib_clipad.text.encoder import encode_prompts
from anomalib_clipad.text.prompts import INDUSTRIAL

from .comparison import CLASS, Comparison, random_model
from .pipeline import pipeline
from .references import few_shot, mutual
from .start import start
from .timing import interleaved, peak_memory, statement_seconds
from .winclip import few_shot_winclip, winclip

PHOTOGRAPHS = 128
"""How many ``Engine.predict`` is measured on."""
MODEL_PROGRAM = """
import logging, torch, warnings
logging.disable(); warnings.simplefilter("ignore")
from anomalib_clipad import ClipADModel, load_backbone
backbone = load_backbone({backbone!r}, None, {image_size})
model = ClipADModel(backbone)
model.text_features.normal_()
model.class_name = "anything"
images = torch.randn({batch_size}, 3, model.image_size, model.image_size)
def encode():
    with torch.inference_mode():
        backbone.clip.encode_image(images)
"""

METRICS_PROGRAM = """
import logging, torch, warnings
logging.disable(); warnings.simplefilter("ignore")
from anomalib.data import ImageBatch
from anomalib_clipad.host.evaluator import SevenMetrics
metrics = SevenMetrics().test_metrics
masks = torch.zeros({count}, 240, 240, dtype=torch.bool)
masks[::2, 50:90, 70:140] = True
maps = torch.rand({count}, 240, 240)
def compute():
    for some, scores in zip(masks.split(32), maps.split(32)):
        batch = ImageBatch(image=scores[:, None].expand(-1, 3, -1, -1), anomaly_map=scores, gt_mask=some,
                           pred_score=scores.amax((1, 2)), gt_label=some.any(2).any(1))
        for metric in metrics:
            metric.update(batch)
    return [metric.compute() for metric in metrics]
"""

STEPS = {
    "decode and collate": "[_PredictionLoop].predict_next",
    "copy to the device": "[Strategy]SingleDeviceStrategy.batch_to_device",
    "resize and normalise": "[Callback]PreProcessor.on_predict_batch_start",
    "model": "[Strategy]SingleDeviceStrategy.predict_step",
    "post-process": "[Callback]ClipADPostProcessor.on_predict_batch_end",
    "visualise": "[Callback]ClipADVisualizer.on_predict_batch_end",
}
"""Parts of ``Engine.predict`` by the names Lightning's profiler gives them."""


def forward_seconds(backbone: Backbone, batch_size: int, repeats: int, **options: Any) -> tuple[float, float]:
    """Median seconds of a model's forward, and of ``encode_image``, for a batch of random images."""
    model = random_model(backbone, **options)
    images = torch.randn(batch_size, 3, model.image_size, model.image_size)
    with torch.inference_mode():
        runs = {"ours": partial(model, images), "encode_image": partial(backbone.clip.encode_image, images)}
        seconds = interleaved(runs, repeats)
    return seconds["ours"], seconds["encode_image"]


def forward_memory(backbone: str, image_size: int | None, batch_size: int) -> tuple[float, float]:
    """Peak megabytes of the model's forward above the model itself, and of ``encode_image``, in fresh processes."""
    prepare = MODEL_PROGRAM.format(backbone=backbone, image_size=image_size, batch_size=batch_size)
    ours, encode_image = (peak_memory(prepare, run) / 2**20 for run in ("model(images)", "encode()"))
    return ours, encode_image


def forward(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """One batch and one image, SDP and SDP+."""
    loaded = load_backbone(backbone, None)
    for size in sorted({1, batch_size}):
        ours, encode_image = forward_seconds(loaded, size, repeats)
        yield Comparison(f"forward, batch {size}, s", ours, "encode_image", encode_image)
    ours, encode_image = forward_seconds(loaded, batch_size, repeats, variant="sdp_plus")
    yield Comparison(f"forward of SDP+, batch {batch_size}, s", ours, "encode_image", encode_image)


def precision(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """bfloat16 beside float32."""
    loaded = load_backbone(backbone, None)
    exact, rounded = random_model(loaded), random_model(loaded, precision="bfloat16")
    images = torch.randn(batch_size, 3, exact.image_size, exact.image_size)
    seconds = interleaved({"bfloat16": partial(rounded, images), "float32": partial(exact, images)}, repeats)
    yield Comparison("forward in bfloat16, s", seconds["bfloat16"], "forward in float32", seconds["float32"])


def compiled(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """The forward through ``torch.compile``, which needs a C++ compiler."""
    model = random_model(load_backbone(backbone, None))
    images = torch.randn(batch_size, 3, model.image_size, model.image_size)
    runs = {"compiled": partial(torch.compile(model), images), "eager": partial(model, images)}
    seconds = interleaved(runs, repeats)
    yield Comparison("forward, torch.compile, s", seconds["compiled"], "forward", seconds["eager"])


def text(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """Text features of one class, without and with the disk cache."""
    del batch_size
    clip, tokenizer = (loaded := load_backbone(backbone, None)).clip, loaded.tokenizer
    prompts = [text for state in INDUSTRIAL.texts(CLASS) for text in state]
    tokens = tokenizer(prompts)

    @torch.inference_mode()
    def full() -> None:
        for part in tokens.split(64):
            clip.encode_text(part)

    cold = partial(encode_prompts, clip, tokenizer, prompts)
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder))
        warm = partial(cache.get, clip, tokens, cold)
        seconds = interleaved({"cold": cold, "warm": warm, "full": full}, max(repeats // 2, 1))
    yield Comparison("text features, cold, s", seconds["cold"], "encode_text at 77 tokens", seconds["full"])
    yield Comparison("text features, warm, s", seconds["warm"], "encode_text at 77 tokens", seconds["full"])


def memory(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """Peak memory of one batch (Linux)."""
    del repeats
    ours, encode_image = forward_memory(backbone, None, batch_size)
    yield Comparison("peak memory above the model, MB", ours, "encode_image", encode_image)


def training(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """A step of SDP+ training, with patch features kept in memory and computed anew."""
    model = random_model(load_backbone(backbone, None), variant="sdp_plus")
    adapter, size = model.adapter, model.image_size
    assert adapter is not None
    images, masks = torch.randn(batch_size, 3, size, size), torch.rand(batch_size, size, size).round()
    optimizer = Adam(adapter.parameters())
    labels, text = masks.amax(dim=(1, 2)), model.text_features.expand(batch_size, -1, -1)
    kept = model.tokens(images)

    def step(features: Callable[[], list[Tensor]]) -> None:
        optimizer.zero_grad()
        total(adapter.losses(model.detector.view, Lesson(features(), text, masks, labels))).backward()
        optimizer.step()

    runs = {"kept": partial(step, lambda: kept), "anew": partial(step, partial(model.tokens, images))}
    seconds = interleaved(runs, repeats)
    yield Comparison("training step, features kept, s", seconds["kept"], "features anew", seconds["anew"])


def engine(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """``Engine.predict`` on JPEGs of 900x900 pixels: throughput, and where a single process spends its time."""
    model = ClipAD(class_name=CLASS, backbone=backbone, pretrained=None)
    size = model.model.image_size
    with tempfile.TemporaryDirectory() as folder:
        dataset = _photographs(Path(folder), count := PHOTOGRAPHS)
        loaders = [
            DataLoader(dataset, batch_size, collate_fn=dataset.collate_fn, num_workers=workers) for workers in (1, 0)
        ]
        options: dict[str, Any] = {"default_root_dir": folder, "logger": False, "enable_progress_bar": False}
        ready = torch.randn(batch_size, 3, size, size)

        def alone() -> None:
            for _ in range(count // batch_size):
                model.model(ready)

        visualizer, model.visualizer = model.visualizer, None
        predict = partial(Engine(**options).predict, model=model, dataloaders=loaders[0])
        seconds = interleaved({"engine": predict, "alone": alone}, max(repeats // 3, 1))
        yield Comparison(
            "Engine.predict, images/s", count / seconds["engine"], "the model alone", count / seconds["alone"]
        )

        model.visualizer = visualizer
        profiler = SimpleProfiler()
        Engine(profiler=profiler, **options).predict(model=model, dataloaders=loaders[1])
    spent = {step: sum(profiler.recorded_durations[action]) for step, action in STEPS.items()}
    for step, value in spent.items():
        yield Comparison(f"Engine.predict, {step}, s", value, "all steps", sum(spent.values()))


def _photographs(folder: Path, count: int) -> PredictDataset:
    rng = np.random.default_rng(0)
    for index in range(count):
        noise = Image.fromarray(rng.integers(0, 255, (90, 90, 3), np.uint8))
        noise.resize((900, 900)).save(folder / f"{index:03}.jpg", quality=90)
    return PredictDataset(folder)


def metrics(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """The seven metrics of 100 and of 200 images with masks."""
    del backbone, batch_size
    small, large = METRICS_PROGRAM.format(count=100), METRICS_PROGRAM.format(count=200)
    megabytes = [peak_memory(prepare, "compute()") / 2**20 for prepare in (small, large)]
    yield Comparison("metrics of 100 images of 240 pixels, MB", megabytes[0], "of 200 images", megabytes[1])
    seconds = [statement_seconds("compute()", min(repeats, 3), prepare) for prepare in (small, large)]
    yield Comparison("metrics of 100 images of 240 pixels, s", seconds[0], "of 200 images", seconds[1])


def imports(backbone: str, batch_size: int, repeats: int) -> Iterator[Comparison]:
    """What the package adds to the start of every Python that imports torch."""
    del backbone, batch_size
    torch_ms = 1e3 * statement_seconds("import torch", repeats)
    ours_ms = 1e3 * statement_seconds("import anomalib_clipad", repeats)
    hook = "from anomalib_clipad.plugin import install; install()"
    without_hook = "import os; os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'] = '0'; import torch"
    hook_ms = 1e3 * statement_seconds(hook, repeats, prepare=without_hook)
    yield Comparison("import anomalib_clipad, ms", ours_ms, "import torch", torch_ms)
    yield Comparison("our hook in import torch, ms", hook_ms, "import torch", torch_ms)


MEASUREMENTS: dict[str, Callable[[str, int, int], Iterator[Comparison]]] = {
    measurement.__name__: measurement
    for measurement in (
        forward,
        precision,
        compiled,
        winclip,
        few_shot,
        few_shot_winclip,
        mutual,
        text,
        memory,
        training,
        engine,
        metrics,
        imports,
        start,
        pipeline,
    )
}
"""Measurements by name: backbone, images per batch and runs of each side to comparisons."""
