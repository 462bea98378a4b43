"""`python -m anomalib_clipad.mini`: train clipad-mini from nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import torch
from jsonargparse import auto_cli

from .loop import Trainer
from .recipe import Recipe
from .weights import average


def train_mini(recipe: Recipe = Recipe(), output: Path = Path("clipad-mini-run")) -> None:  # noqa: B008
    """Train clipad-mini on procedural pictures.

    Args:
        recipe: What to do; the defaults are how the shipped weights were made.
        output: Folder of pictures, checkpoints, log and result; a run that was stopped goes on from there.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)  # the trainer works on the parts of a batch side by side
    cv2.setNumThreads(1)
    results = [output / f"round-{number}.safetensors" for number in range(1, len(recipe.rounds) + 1)]
    for number, result in enumerate(results, 1):
        if not result.exists():
            Trainer(output, recipe, number).run()
    average(results[-recipe.averaged :], output / "clipad-mini.safetensors")


if __name__ == "__main__":
    auto_cli(train_mini, as_positional=False)
