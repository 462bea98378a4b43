"""Regions of a map, each with a p-value."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .conformal import largest_allowed, p_values


class Region(NamedTuple):
    """A connected defective region.

    Attributes:
        box: Left, top, right, bottom in pixels of the map, right and bottom outside of it.
        area: Number of pixels.
        peak: Largest map value.
        p_value: How rare so high a maximum is among the maps of normal images.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float
    p_value: float


def find_regions(anomaly_map: NDArray[np.float32], region_scores: ArrayLike, false_alarm_rate: float) -> list[Region]:
    """The defective regions of an image, the most abnormal first.

    The chance that a normal image has any is at most the rate: its map's maximum is what is compared.

    Args:
        anomaly_map: Map (H, W).
        region_scores: Map maxima of normal images (n,), as of ``Certificate``.
        false_alarm_rate: The rate.

    Returns:
        Regions of ``pred_mask``, pixels that touch by an edge or a corner together.

    Example:
        >>> picture = np.zeros((4, 6), np.float32)
        >>> picture[1:3, 2:5] = 0.8
        >>> find_regions(picture, [0.1, 0.3, 0.5, 0.7], 0.2)
        [Region(box=(2, 1, 5, 3), area=6, peak=0.800000011920929, p_value=0.2)]
    """
    found = components(anomaly_map, largest_allowed(region_scores, false_alarm_rate))
    if not found:
        return []
    values = p_values([part.peak for part in found], np.asarray(region_scores, np.float32))
    return [
        Region((part.left, part.top, part.left + part.width, part.top + part.height), part.area, part.peak, rarity)
        for part, rarity in zip(found, values.tolist(), strict=True)
    ]


class Component(NamedTuple):
    """Connected pixels: box, number, largest and mean value."""

    left: int
    top: int
    width: int
    height: int
    area: int
    peak: float
    mean: float


def components(anomaly_map: NDArray[np.float32], threshold: float) -> list[Component]:
    """Connected pixels of a map (H, W) above a threshold, those that touch by an edge or a corner together.

    Values that are no numbers are above any threshold. The highest peak comes first.
    """
    above = ~(anomaly_map <= np.float32(threshold))
    count, numbers, statistics, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    found = []
    for number in range(1, count):
        left, top, width, height, area = (int(value) for value in statistics[number])
        window = np.s_[top : top + height, left : left + width]
        values = anomaly_map[window][numbers[window] == number]
        found.append(Component(left, top, width, height, area, float(values.max()), float(values.mean())))
    return sorted(found, key=lambda part: part.peak, reverse=True)
