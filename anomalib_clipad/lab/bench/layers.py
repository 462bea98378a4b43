"""`python -m anomalib_clipad.lab sdp-plus`: what trained layers bring, on generated parts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import seed_everything
from rich.console import Console

from anomalib_clipad import ClipAD
from anomalib_clipad.checks import check_counts
from anomalib_clipad.data import Auxiliary, GeneratedParts
from anomalib_clipad.lab.evaluation import quiet_engine
from anomalib_clipad.parts.categories import HELD_OUT_CATEGORIES, TRAINING_CATEGORIES
from anomalib_clipad.vision.choices import Tap

from .shots import compared, tell

_MINI: dict[str, Any] = {"backbone": "clipad-mini", "visualizer": False}
_TAPS: tuple[Tap, ...] = ("reference", "block")


def main(taps: Sequence[Tap] = _TAPS, epochs: int = 5, threads: int = 1, seed: int = 0) -> None:
    """Train SDP+ on the categories that validate clipad-mini, with each tap, and compare it with SDP on the others.

    Args:
        taps: Where the ordinary path is read.
        epochs: Of training.
        threads: CPU threads.
        seed: Of layers and order.
    """
    check_counts(epochs=epochs, threads=threads)
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder, Console(stderr=True).status("Training and comparing layers"):
        ways: dict[str, dict[str, Any]] = {}
        for tap in taps:
            layers = train(Path(folder) / tap, tap, epochs, seed)
            ways[f"SDP, tap `{tap}`"] = {"tap": tap}
            ways[f"SDP+, tap `{tap}`"] = {"tap": tap, "adapter": str(layers)}
        found = {
            name: compared(ways, GeneratedParts(category=name, eval_batch_size=16)) for name in HELD_OUT_CATEGORIES
        }
    tell(found, "mean of the six", ("pixel_F1Max", "pixel_PRO"))


def train(
    folder: Path, tap: Tap, epochs: int, seed: int = 0, categories: Mapping[str, Any] = TRAINING_CATEGORIES
) -> Path:
    """Train layers in a folder; the file of them."""
    seed_everything(seed, verbose=False)
    model = ClipAD(variant="sdp_plus", tap=tap, epochs=epochs, feature_cache="memory", **_MINI)
    data = Auxiliary(GeneratedParts(), GeneratedParts(category="gear", train_images=1), [*categories], shuffle=True)
    with quiet_engine(default_root_dir=folder) as engine:
        engine.fit(model=model, datamodule=data)
    return max(folder.rglob("adapter.safetensors"), key=lambda path: path.stat().st_mtime)
