"""Conformal p-values, and what n calibration images can promise.

The p-value of a score is (1 + number of calibration scores >= it) / (n + 1): how rare so high a score is among normal
images (Vovk et al., Algorithmic Learning in a Random World). Images whose p-value is at most a rate are called
defective; of normal images that come from where the calibration images came from, at most that share is.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
"""Confidence of what is said about one calibration set."""
ROUNDING = 1e-3
"""Share of one image by which rate * (n + 1) may miss an integer in float32."""
_APART = 1.5
"""Gap, in interquartile ranges, above which the largest scores stand apart."""


def check_rate(rate: float) -> None:
    """Check a false-alarm rate.

    Raises:
        ValueError: If it is no number between 0 and 1.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1:
        msg = f"false_alarm_rate has to be a share between 0 and 1, such as 0.05 for one in twenty; got {rate!r}."
        raise ValueError(msg)


def smallest_rate(count: int) -> float:
    """The smallest false-alarm rate at which ``count`` calibration images allow any verdict "defective"."""
    return 1 / (count + 1)


def images_needed(rate: float) -> int:
    """How many calibration images a rate takes.

    >>> images_needed(0.05), images_needed(0.01), images_needed(0.001)
    (19, 99, 999)
    """
    return max(1, math.ceil(1 / rate - 1 - ROUNDING))


def allowed(rate: float, count: int) -> int:
    """The rank among ``count`` + 1 images, counted from the highest score, down to which an image is defective."""
    return math.floor(rate * (count + 1) + ROUNDING)


def false_alarms_at_most(rate: float, count: int, confidence: float = CONFIDENCE) -> float:
    """What share of normal images one calibration set calls defective at most, with some confidence.

    The rate holds on average over calibration sets; that of one set is Beta(k, n + 1 - k) distributed with
    k = floor((n + 1) rate) (Vovk 2012, Conditional validity of inductive conformal predictors).

    Args:
        rate: The false-alarm rate asked for.
        count: Number of calibration images.
        confidence: Share of calibration sets that keep the promise.

    Example:
        At 5 %:

        >>> [round(false_alarms_at_most(0.05, count), 3) for count in (20, 50, 200)]
        [0.139, 0.091, 0.077]
    """
    from scipy.stats import beta  # takes half a second

    rank = allowed(rate, count)
    return float(beta.ppf(confidence, rank, count + 1 - rank)) if rank else 0.0


def promise(count: int, rate: float, left_out: bool = False) -> str:
    """What calibration images promise, in words."""
    words = (
        f"{count} normal images calibrate a false-alarm rate of {rate:.2%}; the smallest rate they allow is "
        f"{smallest_rate(count):.2%}. "
    )
    if left_out:
        return words + (
            "Each was left out in turn, which guarantees less: at most twice the rate on average, usually about it."
        )
    return words + f"With 95 % confidence at most {false_alarms_at_most(rate, count):.1%} of normal images are flagged."


def standing_apart(scores: ArrayLike) -> list[int]:
    """Which of the largest scores, at most a tenth of all, a wide gap divides from the rest: perhaps defects.

    Args:
        scores: Scores (n,).

    Returns:
        Indices, the largest score first; none for fewer than ten scores.
    """
    values = np.asarray(scores, np.float64)
    order = np.argsort(-values)
    several = len(values) // 10
    spread = np.subtract(*np.percentile(values, [75, 25]))
    gaps = -np.diff(values[order])[:several]
    wide = np.flatnonzero(gaps > _APART * spread)
    return order[: wide[-1] + 1].tolist() if len(wide) else []
