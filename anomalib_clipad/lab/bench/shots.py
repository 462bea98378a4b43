"""`python -m anomalib_clipad.lab references`: what normal and unlabelled images add to the text, by metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataModule
from rich.console import Console

from anomalib_clipad import ClipAD
from anomalib_clipad.checks import check_counts
from anomalib_clipad.data import GeneratedParts
from anomalib_clipad.lab.evaluation import evaluate
from anomalib_clipad.lab.mini.card import real_category
from anomalib_clipad.metrics import Metrics
from anomalib_clipad.parts.categories import HELD_OUT_CATEGORIES
from anomalib_clipad.tools.evaluation import format_table, with_mean
from anomalib_clipad.tools.tables import Row, markdown_table
from anomalib_clipad.vision.joining import LEAST

Ways = Mapping[str, dict[str, Any]]
"""Options of ``ClipAD`` by what they are called in a table."""

JOININGS: Ways = {
    "plain sum": {"joining": "sum"},
    "by spread": {"joining": "spread"},
    "images alone": {"text_weight": 0.0},
}
"""How images join the text, by what that is called in a table."""

_REMEMBERED = 4
"""Normal images of which a smaller memory keeps some patches."""


def main(
    photographs: Path | None = None,
    shots: Sequence[int] = (1, 4),
    memory: Sequence[int] | None = None,
    categories: Sequence[str] = tuple(HELD_OUT_CATEGORIES),
    threads: int = 1,
) -> None:
    """Print what clipad-mini finds with the text alone, with normal images beside it, and with these alone.

    Args:
        photographs: Folder of a real category in MVTec AD's layout, whose name is the class name; in place of generated
            parts.
        shots: Numbers of normal images.
        memory: Compare instead memories of so many patches a stage, of four normal images without the text.
        categories: Generated categories.
        threads: CPU threads.
    """
    check_counts(threads=threads)
    torch.set_num_threads(threads)
    with Console(stderr=True).status("Comparing"):
        if photographs:
            print(
                format_table(
                    compared(photograph_ways(shots), real_category(photographs), photographs.name), photographs.name
                )
            )
            return
        ways = memory_ways(memory) if memory else ways_of(shots)
        found = {name: compared(ways, GeneratedParts(category=name, eval_batch_size=16)) for name in categories}
    if memory:
        print(by_category(found, ("image_AUROC", "pixel_AUROC", "pixel_PRO")))
        return
    tell(found, "mean of the categories", ("image_AUROC", "pixel_PRO"))


def ways_of(shots: Sequence[int]) -> Ways:
    """With the text, joined in both ways, and without it."""
    others = {f"k_shot {count}": {"k_shot": count} for count in shots} | {"mutual": {"mutual": True}}
    return {"text alone": {}} | {
        f"{name}, {how}": given | options
        for how, options in JOININGS.items()
        for name, given in others.items()
        if how != "by spread" or given.get("k_shot", LEAST) >= LEAST
    }


def photograph_ways(shots: Sequence[int]) -> Ways:
    """Those of generated parts, a smaller memory, and tiles."""
    return {
        **ways_of(shots),
        "k_shot 4, memory_size 361": {"k_shot": 4, "memory_size": 361},
        "text alone, tiles [2, 2]": {"tiles": [2, 2]},
        "k_shot 4, tiles [2, 2]": {"k_shot": 4, "tiles": [2, 2]},
    }


def memory_ways(sizes: Sequence[int]) -> Ways:
    """Memories that keep so many patches a stage."""
    images = {"k_shot": _REMEMBERED, "text_weight": 0.0}
    return {"all": images} | {f"`memory_size` {size}": images | {"memory_size": size} for size in sizes}


def compared(ways: Ways, data: AnomalibDataModule, class_name: str | None = None) -> dict[str, Metrics]:
    """The metrics of each way."""
    return {
        name: evaluate(ClipAD(class_name, backbone="clipad-mini", visualizer=False, **options), data)
        for name, options in ways.items()
    }


def tell(found: Mapping[str, Mapping[str, Metrics]], title: str, names: Sequence[str]) -> None:
    """Print the mean of all categories, and some metrics of each.

    Args:
        found: Of ``compared``, by category.
        title: Of the means.
        names: Which metrics.
    """
    ways = next(iter(found.values()))
    means = {way: with_mean({name: rows[way] for name, rows in found.items()})["mean"] for way in ways}
    print(format_table(means, title))
    print("\n" + by_category(found, names))


def by_category(found: Mapping[str, Mapping[str, Metrics]], names: Sequence[str]) -> str:
    """Some metrics in each cell: a row for each way, a column for each category."""
    ways = next(iter(found.values()))
    rows: list[Row] = [
        [way, *(" / ".join(f"{rows[way][name]:.3f}" for name in names) for rows in found.values())] for way in ways
    ]
    return markdown_table([(" / ".join(names), ""), *((category, "") for category in found)], rows)
