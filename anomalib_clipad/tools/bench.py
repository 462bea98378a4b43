"""`anomalib-clipad bench`: what CLIP-AD costs on this machine, as ratios to its peers in the same run."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from anomalib.engine import Engine
from anomalib.models.image.winclip import torch_model as winclip_module
from PIL import Image
from rich.console import Console
from rich.table import Table

from anomalib_clipad.backbones import Backbone, load_backbone
from anomalib_clipad.text.cache import EmbeddingCache
from anomalib_clipad.text.encoder import encode_prompts
from anomalib_clipad.torch_model import ClipADModel

from .timing import interleaved, peak_memory, statement_seconds

_CLASS = "metal_nut"
_PREPARE = """
import logging, torch, warnings
logging.disable(); warnings.simplefilter("ignore")
from anomalib_clipad import ClipADModel, load_backbone
model = ClipADModel(load_backbone({backbone!r}, None))
model.text_features.normal_()
model.class_name = "anything"
images = torch.randn({batch}, 3, model.image_size, model.image_size)
def encode():
    with torch.inference_mode():
        model.clip.encode_image(images)
"""

_FIGURES = """
import logging, torch, warnings
logging.disable(); warnings.simplefilter("ignore")
from anomalib.data import ImageBatch
from anomalib_clipad.scoring.evaluator import SevenFigures
figures = SevenFigures().test_metrics
masks = torch.zeros({count}, 240, 240, dtype=torch.bool)
masks[::2, 50:90, 70:140] = True
maps = torch.rand({count}, 240, 240)
def compute():
    for some, scores in zip(masks.split(32), maps.split(32)):
        batch = ImageBatch(image=scores[:, None].expand(-1, 3, -1, -1), anomaly_map=scores, gt_mask=some,
                           pred_score=scores.amax((1, 2)), gt_label=some.any(2).any(1))
        for figure in figures:
            figure.update(batch)
    return [figure.compute() for figure in figures]
"""

Row = tuple[str, float, str, float]
"""What is measured, its seconds (or bytes, or images per second), its peer, the peer's."""


def bench(
    backbone: str = "ViT-B-16-plus-240",
    batch_size: int = 8,
    repeats: int = 7,
    threads: int | None = None,
    only: list[str] | None = None,
) -> None:
    """Print how long CLIP-AD takes beside its peers. Weights are random: they do not matter for time.

    Args:
        backbone: open_clip model name.
        batch_size: Images per batch.
        repeats: Runs of each side, in turns; medians are printed.
        threads: Threads torch uses; by default its own choice.
        only: Which to measure of forward, precision, winclip, text, memory, engine, figures, imports; by default all.
    """
    warnings.filterwarnings("ignore", message=".*RANDOM weights")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    if threads:
        torch.set_num_threads(threads)
    unknown = set(only or []) - set(_MEASUREMENTS)
    if unknown:
        msg = f"Unknown measurements {sorted(unknown)}; expected some of {', '.join(_MEASUREMENTS)}."
        raise ValueError(msg)
    console = Console()
    title = f"{backbone}, batch {batch_size}, {torch.get_num_threads()} threads, random weights"
    table = Table("measured", "value", "peer", "peer's value", "ratio", title=title)
    for name in only or _MEASUREMENTS:
        with console.status(f"Measuring: {name}"):
            for what, value, peer, peers_value in _MEASUREMENTS[name](backbone, batch_size, repeats):
                table.add_row(what, f"{value:.4g}", peer, f"{peers_value:.4g}", f"{value / peers_value:.3f}")
    console.print(table)


def _model(backbone: Backbone, **options: Any) -> ClipADModel:
    model = ClipADModel(backbone, **options)
    model.text_features.normal_()
    model.class_name = _CLASS
    return model


def _encode_image(backbone: Backbone, images: torch.Tensor) -> Callable[[], Any]:
    @torch.inference_mode()
    def run() -> torch.Tensor:
        return backbone.clip.encode_image(images)

    return run


def _forward(name: str, batch: int, repeats: int) -> Iterator[Row]:
    backbone = load_backbone(name, None)
    model = _model(backbone)
    for size in sorted({1, batch}):
        images = torch.randn(size, 3, model.image_size, model.image_size)
        run: dict[str, Callable[[], Any]] = {
            "ours": partial(model, images),
            "encode_image": _encode_image(backbone, images),
        }
        seconds = interleaved(run, repeats)
        yield f"forward, batch {size}, s", seconds["ours"], "encode_image", seconds["encode_image"]


def _precision(name: str, batch: int, repeats: int) -> Iterator[Row]:
    exact, rounded = _model(load_backbone(name, None)), _model(load_backbone(name, None), precision="bfloat16")
    images = torch.randn(batch, 3, exact.image_size, exact.image_size)
    seconds = interleaved({"bfloat16": lambda: rounded(images), "float32": lambda: exact(images)}, repeats)
    yield "forward in bfloat16, s", seconds["bfloat16"], "forward in float32", seconds["float32"]


def _winclip(name: str, batch: int, repeats: int) -> Iterator[Row]:
    """WinCLIP has one backbone, with random weights here too."""
    model = _model(load_backbone(name, None))
    with patch.object(winclip_module, "PRETRAINED", None):
        peer = winclip_module.WinClipModel(_CLASS).eval()
    images = torch.randn(batch, 3, 240, 240)
    ours = interleaved({"ours": lambda: model(images)}, repeats)["ours"]
    with torch.inference_mode():
        winclip = interleaved({"winclip": lambda: peer(images)}, 1)["winclip"]
    yield "images/s", batch / ours, "WinClip", batch / winclip


def _text(name: str, batch: int, repeats: int) -> Iterator[Row]:
    del batch
    backbone = load_backbone(name, None)
    model = _model(backbone)
    prompts = [text for state in model.prompts.texts(_CLASS) for text in state]
    tokens = backbone.tokenizer(prompts)

    @torch.inference_mode()
    def full() -> None:
        for part in tokens.split(64):
            backbone.clip.encode_text(part)

    cold = partial(encode_prompts, backbone.clip, backbone.tokenizer, prompts)
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder))
        warm = partial(cache.get, backbone.clip, tokens, cold)
        seconds = interleaved({"cold": cold, "warm": warm, "full": full}, max(repeats // 2, 1))
    yield "text features, cold, s", seconds["cold"], "encode_text at 77 tokens", seconds["full"]
    yield "text features, warm, s", seconds["warm"], "encode_text at 77 tokens", seconds["full"]


def _memory(name: str, batch: int, repeats: int) -> Iterator[Row]:
    del repeats
    prepare = _PREPARE.format(backbone=name, batch=batch)
    megabytes = [peak_memory(prepare, run) / 2**20 for run in ("model(images)", "encode()")]
    yield "peak memory above the model, MB", megabytes[0], "encode_image", megabytes[1]


def _engine(name: str, batch: int, repeats: int) -> Iterator[Row]:
    """128 JPEGs of 900x900 pixels through ``Engine.predict``, without pictures of the results."""
    del repeats
    from anomalib.data import PredictDataset
    from torch.utils.data import DataLoader

    from anomalib_clipad import ClipAD

    model = ClipAD(class_name=_CLASS, backbone=name, pretrained=None, visualizer=False)
    count = 128
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for index in range(count):
            noise = rng.integers(0, 255, (90, 90, 3), np.uint8)
            Image.fromarray(noise).resize((900, 900)).save(Path(folder) / f"{index:03}.jpg", quality=90)
        dataset = PredictDataset(folder)
        loader = DataLoader(dataset, batch, collate_fn=dataset.collate_fn, num_workers=1)
        engine = Engine(default_root_dir=folder, logger=False, enable_progress_bar=False)
        images = torch.randn(batch, 3, model.model.image_size, model.model.image_size)

        def alone() -> None:
            for _ in range(count // batch):
                model.model(images)

        run = {"engine": lambda: engine.predict(model=model, dataloaders=loader), "alone": alone}
        seconds = interleaved(run, 2)
    yield "Engine.predict, images/s", count / seconds["engine"], "the model alone", count / seconds["alone"]


def _figures(name: str, batch: int, repeats: int) -> Iterator[Row]:
    """The seven figures of 100 and of 200 images with masks."""
    del name, batch
    small, large = _FIGURES.format(count=100), _FIGURES.format(count=200)
    megabytes = [peak_memory(prepare, "compute()") / 2**20 for prepare in (small, large)]
    yield "figures of 100 images of 240 pixels, MB", megabytes[0], "of 200 images", megabytes[1]
    seconds = [statement_seconds("compute()", min(repeats, 3), prepare) for prepare in (small, large)]
    yield "figures of 100 images of 240 pixels, s", seconds[0], "of 200 images", seconds[1]


def _imports(name: str, batch: int, repeats: int) -> Iterator[Row]:
    del name, batch
    torch_ms = 1e3 * statement_seconds("import torch", repeats)
    ours_ms = 1e3 * statement_seconds("import anomalib_clipad", repeats)
    hook = "from anomalib_clipad.plugin import install; install()"
    without_hook = "import os; os.environ['TORCH_DEVICE_BACKEND_AUTOLOAD'] = '0'; import torch"
    hook_ms = 1e3 * statement_seconds(hook, repeats, prepare=without_hook)
    yield "import anomalib_clipad, ms", ours_ms, "import torch", torch_ms
    yield "our hook in import torch, ms", hook_ms, "import torch", torch_ms


_MEASUREMENTS: dict[str, Callable[[str, int, int], Iterator[Row]]] = {
    "forward": _forward,
    "precision": _precision,
    "winclip": _winclip,
    "text": _text,
    "memory": _memory,
    "engine": _engine,
    "figures": _figures,
    "imports": _imports,
}
