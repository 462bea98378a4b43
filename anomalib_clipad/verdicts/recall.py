"""How well scores tell defects from normal images, as numbers that need no threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

RECALL = 0.9
"""Share of defects that are found, where false alarms are counted."""


def false_alarms_at(normal: ArrayLike, defective: ArrayLike, recall: float = RECALL) -> float:
    """Share of normal images that are called defective where so many defects are found.

    Args:
        normal: Scores of normal images (n,), n > 0.
        defective: Scores of defects (m,), m > 0.
        recall: Share of defects that score as high as the threshold, or higher.

    Example:
        >>> false_alarms_at([0.1, 0.2, 0.6, 0.7], [0.5, 0.8, 0.9])
        0.5
    """
    falling = np.sort(np.asarray(defective, np.float64))[::-1]
    threshold = falling[int(np.ceil(round(recall * len(falling), 9))) - 1]
    return float(np.mean(np.asarray(normal, np.float64) >= threshold))


def auroc(normal: ArrayLike, defective: ArrayLike) -> float:
    """Chance that a defect scores higher than a normal image; a tie counts half.

    Args:
        normal: As of ``false_alarms_at``.
        defective: Likewise.

    Example:
        >>> auroc([0.1, 0.2, 0.6, 0.7], [0.5, 0.8, 0.9])
        0.8333333333333334
    """
    low, high = np.asarray(normal, np.float64)[:, None], np.asarray(defective, np.float64)[None]
    return float(np.mean((high > low) + 0.5 * (high == low)))
