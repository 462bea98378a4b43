"""Regions of a map, each with a p-value."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import find_objects, label, maximum

from .conformal import allowed, p_values


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
    scores = np.sort(np.asarray(region_scores, np.float32))[::-1]
    rank = allowed(false_alarm_rate, len(scores))
    threshold = scores[min(rank, len(scores)) - 1] if rank else np.inf
    found, count = label(~(anomaly_map <= threshold), np.ones((3, 3)))
    if not count:
        return []
    numbers = np.arange(1, count + 1)
    peaks = np.asarray(maximum(anomaly_map, found, numbers), np.float32)
    areas = np.bincount(found.ravel())[1:]
    regions = [
        Region((x.start, y.start, x.stop, y.stop), int(area), float(peak), float(value))
        for (y, x), area, peak, value in zip(find_objects(found), areas, peaks, p_values(peaks, scores), strict=True)
    ]
    return sorted(regions, key=lambda region: region.peak, reverse=True)
