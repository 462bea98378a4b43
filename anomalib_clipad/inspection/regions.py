"""Defective regions of a map at the size of its image."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

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
    above = ~(anomaly_map <= threshold)
    count, numbers, statistics, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    regions = []
    for number in range(1, count):
        left, top, width, height, area = (int(value) for value in statistics[number])
        if area < min_area:
            continue
        window = np.s_[top : top + height, left : left + width]
        values = anomaly_map[window][numbers[window] == number]
        peak = float(values.max())
        of_peak = None if p_value is None else p_value(peak)
        regions.append(Region((left, top, width, height), area, peak, float(values.mean()), of_peak))
    return tuple(sorted(regions, key=lambda region: region.peak, reverse=True))
