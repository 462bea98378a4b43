"""`python -m anomalib_clipad.lab large-images`: what to do about small defects, by metrics and by time."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from anomalib_clipad.checks import check_counts
from anomalib_clipad.data import GeneratedParts
from anomalib_clipad.lab.evaluation import evaluate
from anomalib_clipad.lightning_model import ClipAD
from anomalib_clipad.metrics import METRICS
from anomalib_clipad.tools.tables import markdown_table

WAYS: dict[str, dict[str, Any]] = {
    "the backbone's size": {},
    "image_size doubled": {"image_size": 608},
    "2 x 2 tiles": {"tiles": [2, 2]},
}
"""Ways to look at a large image with clipad-mini, of 304 pixels."""


class SmallDefects(GeneratedParts):
    """Large pictures with small defects: of the defective ones, those whose defect covers no more than a share.

    Args:
        largest: Largest share of the picture that a defect covers.
        **options: Those of ``GeneratedParts``.

    Raises:
        ValueError: If no defect is so small.
    """

    def __init__(self, largest: float, **options: Any) -> None:
        super().__init__(**options)
        self.largest = largest

    def _setup(self, _stage: str | None = None) -> None:
        super()._setup(_stage)
        samples = self.test_data.samples.reset_index(drop=True)
        kept = [
            row
            for row, (label, mask) in enumerate(zip(samples["label_index"], samples["mask_path"], strict=True))
            if label == 0 or _share(mask) <= self.largest
        ]
        if (samples["label_index"][kept] == 0).all():
            msg = f"No generated defect of {self.category} covers {self.largest:.2%} of its picture or less."
            raise ValueError(msg)
        self.test_data = self.test_data.subsample(kept)


def _share(mask: str) -> float:
    return float((np.asarray(Image.open(mask)) > 0).mean())


def large_images(
    category: list[str] | None = None,
    k_shot: int | None = None,
    largest: float = 0.003,
    image_size: int = 720,
    defective_images: int = 56,
) -> None:
    """Compare ways to look at large pictures with small defects, with clipad-mini.

    Args:
        category: Generated categories; by default the six held-out ones.
        k_shot: Number of normal pictures to compare with.
        largest: Largest share of a picture that a defect covers; pictures with larger ones are left out.
        image_size: Height and width of the pictures in pixels.
        defective_images: How many pictures with defects of any size are generated.

    Raises:
        ValueError: If a category is unknown, or a number makes no data set.
    """
    check_counts(image_size=image_size, defective_images=defective_images)
    categories = category or ["gear", "bracket", "connector", "weave", "wood", "granite"]
    rows: list[tuple[str | float, ...]] = []
    with Console(stderr=True).status("Looking at large pictures"):
        for name, options in WAYS.items():
            results = list(_results(categories, options | {"k_shot": k_shot}, largest, image_size, defective_images))
            means = [float(np.mean([metrics[metric] for metrics, _, _ in results])) for metric in METRICS]
            seconds = sum(spent for _, spent, _ in results) / sum(count for _, _, count in results)
            rows.append((name, *means, seconds))
    columns = [("way", ""), *((metric, ".3f") for metric in METRICS), ("s an image", ".3f")]
    print(markdown_table(columns, rows))


def _results(
    categories: list[str], options: dict[str, Any], largest: float, image_size: int, defective_images: int
) -> Iterator[tuple[dict[str, float], float, int]]:
    """Metrics, seconds of scoring, and number of scored pictures of each category."""
    for category in categories:
        numbers = {"image_size": image_size, "defective_images": defective_images, "eval_batch_size": 8}
        data = SmallDefects(largest, category=category, **numbers)
        data.prepare_data()
        model = ClipAD(backbone="clipad-mini", visualizer=False, **options)
        forward, spent, seen = model.model.forward, [0.0], [0]

        def timed(images: Any, forward: Any = forward, spent: list = spent, seen: list = seen) -> Any:
            begin = perf_counter()
            outcome = forward(images)
            spent[0] += perf_counter() - begin
            seen[0] += len(images)
            return outcome

        model.model.forward = timed  # type: ignore[method-assign]
        yield evaluate(model, data), spent[0], seen[0]
