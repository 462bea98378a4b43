"""The names of the paper's seven metrics; ``host.evaluator`` computes them."""

from __future__ import annotations

METRICS = ("image_AUROC", "image_F1Max", "image_AP", "pixel_AUROC", "pixel_F1Max", "pixel_AP", "pixel_PRO")
"""In the order of every table."""

Metrics = dict[str, float]
"""Name of a metric to its value."""
