"""Defective regions of a map."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


class Region(NamedTuple):
    """A connected defective region, in pixels of the map.

    Attributes:
        box: Left, top, width, height, as COCO has them.
        area: Number of pixels.
        peak: Largest map value that is a number; infinite if none is.
        mean: Mean of those that are numbers, likewise.
        p_value: How rare so high a maximum is among the maps of normal images, where the model is calibrated.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float
    mean: float
    p_value: float | None


class Regions(tuple[Region, ...]):
    """The regions of one map.

    Attributes:
        mask: Whether a pixel belongs to one of them (H, W).
    """

    mask: NDArray[np.bool_]

    def __new__(cls, found: Iterable[Region], mask: NDArray[np.bool_]) -> Regions:  # noqa: D102  # see the class
        regions = super().__new__(cls, found)
        regions.mask = mask
        return regions

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self), self.mask


def find_regions(
    anomaly_map: NDArray[np.float32],
    threshold: float,
    min_area: int = 0,
    p_value: Callable[[float], float] | None = None,
) -> Regions:
    """Connected pixels above a threshold, those that touch by an edge or a corner together.

    Args:
        anomaly_map: Map (H, W).
        threshold: Values above it are defective; those that are no numbers are, too.
        min_area: Smaller regions do not count, in pixels.
        p_value: Of the peak of a region, where the model is calibrated: ``NormalScores.region_p_value``.

    Returns:
        Regions, the most abnormal first: those with a value that is no number, then by their peaks.

    Example:
        >>> picture = np.zeros((4, 6), np.float32)
        >>> picture[1:3, 2:5] = 0.8
        >>> find_regions(picture, 0.5)[0].box
        (2, 1, 3, 2)
    """
    above = ~(anomaly_map <= np.float32(threshold))
    count, numbers, statistics, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    found = []
    for number in range(1, count):
        left, top, width, height, area = (int(value) for value in statistics[number])
        window = np.s_[top : top + height, left : left + width]
        own = numbers[window] == number
        if area < min_area:
            above[window] &= ~own
            continue
        values = anomaly_map[window][own]
        finite = values[np.isfinite(values)]
        peak, mean = (float(finite.max()), float(finite.mean())) if len(finite) else (math.inf, math.inf)
        whole = len(finite) == area
        rarity = None if p_value is None else p_value(peak if whole else math.nan)
        found.append((whole, -peak, Region((left, top, width, height), area, peak, mean, rarity)))
    return Regions((region for _, _, region in sorted(found, key=lambda entry: entry[:2])), above)
