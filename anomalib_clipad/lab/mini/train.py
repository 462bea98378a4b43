"""`python -m anomalib_clipad.lab mini-train`: train clipad-mini from nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from .loop import Trainer
from .recipe import Recipe


def train_mini(recipe: Recipe = Recipe(), output: Path = Path("clipad-mini-run"), device: str | None = None) -> None:  # noqa: B008
    """Train clipad-mini on procedural pictures.

    Args:
        recipe: What to do; the defaults are how the shipped weights were made.
        output: Folder of pictures, checkpoint, log and result; a run that was stopped goes on from there.
        device: Where to train; by default a GPU, if there is one.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_float32_matmul_precision("high")  # TF32, where there is a GPU
    Trainer(output, recipe, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))).run()
