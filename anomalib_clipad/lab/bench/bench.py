"""`python -m anomalib_clipad.lab bench`: what CLIP-AD costs on this machine, as ratios to its peers in the same run."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from rich.console import Console

from anomalib_clipad.checks import check_counts
from anomalib_clipad.tools.evaluation import quiet
from anomalib_clipad.tools.tables import markdown_table

from .comparison import Comparison
from .growth import growth
from .measurements import MEASUREMENTS

_COLUMNS = (("measured", ""), ("value", ".4g"), ("peer", ""), ("its value", ".4g"), ("ratio", ".3f"))


def bench(
    backbone: str = "ViT-B-16-plus-240",
    batch_size: int = 8,
    repeats: int = 7,
    threads: int | None = None,
    only: list[str] | None = None,
    growth_to: Path | None = None,
) -> None:
    """Print how long CLIP-AD takes beside its peers. Weights are random: they do not matter for time.

    Args:
        backbone: open_clip model name.
        batch_size: Images per batch.
        repeats: Runs of each side, in turns; medians are printed.
        threads: Threads torch uses; by default its own choice.
        only: Which to measure of forward, precision, compiled, winclip, few_shot, few_shot_winclip, mutual, text,
            memory, training, engine, metrics, imports, start, pipeline; by default all.
        growth_to: Measure instead how cost grows with batch size, image size and backbone, and write a table and a
            plot into this folder.

    Raises:
        ValueError: If a measurement is unknown, or a number is below one.
    """
    check_counts(batch_size=batch_size, repeats=repeats, threads=threads)
    unknown = set(only or []) - set(MEASUREMENTS)
    if unknown:
        msg = f"Unknown measurements {sorted(unknown)}; expected some of {', '.join(MEASUREMENTS)}."
        raise ValueError(msg)
    if threads:
        torch.set_num_threads(threads)
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*RANDOM weights")
        if growth_to:
            print(growth(growth_to, repeats))
        else:
            print(f"{backbone}, batch {batch_size}, {torch.get_num_threads()} threads, random weights\n")
            _compare(backbone, batch_size, repeats, only or list(MEASUREMENTS))


def _compare(backbone: str, batch_size: int, repeats: int, names: list[str]) -> None:
    console = Console(stderr=True)
    measured: list[Comparison] = []
    try:
        for name in names:
            with console.status(f"Measuring: {name}"):
                measured += MEASUREMENTS[name](backbone, batch_size, repeats)
    finally:  # also where a later measurement fails
        print(markdown_table(_COLUMNS, [(*comparison, comparison.ratio) for comparison in measured]))
