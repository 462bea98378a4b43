"""Defective regions of a map at the size of its image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.verdicts.regions import components

from .finding import Region


def find_regions(
    anomaly_map: NDArray[np.float32],
    threshold: float,
    min_area: int = 0,
    p_value: Callable[[float], float] | None = None,
) -> tuple[Region, ...]:
    """Connected pixels above a threshold, those that touch by an edge or a corner together.

    Args:
        anomaly_map: Map (H, W).
        threshold: Values above it are defective; those that are no numbers are, too.
        min_area: Smaller regions do not count, in pixels.
        p_value: Of the peak of a region, where the model is calibrated.

    Returns:
        Regions, the most abnormal first.

    Example:
        >>> picture = np.zeros((4, 6), np.float32)
        >>> picture[1:3, 2:5] = 0.8
        >>> find_regions(picture, 0.5)[0].box
        (2, 1, 3, 2)
    """
    return tuple(
        Region(
            (part.left, part.top, part.width, part.height),
            part.area,
            part.peak,
            part.mean,
            None if p_value is None else p_value(part.peak),
        )
        for part in components(anomaly_map, threshold)
        if part.area >= min_area
    )
