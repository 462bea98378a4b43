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
TIE = 1e-5
"""A score that is higher by no more than this counts as equal: one image, scored alone and in a batch, differs less."""
# Measured with clipad-mini on 100 good and 35 defective pictures of each of 19 categories of generated parts, and on 30
# and 17 photographs of hazelnuts, scored by text, by four references, and by both: 150 sets drawn of each. Of sets of
# 20, 30 and 50 good images 4.8, 4.4 and 4.7 % are said to have some that stand apart. Of one defective image among 20
# good ones 51 % are found, and 67 % of those that matter, since they score above all the others; of two among 38, 45 %.
# At 4.5 it would be 73 % of those that matter, and one in ten good sets. Of hazelnuts less than one in ten is found:
# good ones differ as much from each other. On the scores' own scale, 1.5 interquartile ranges between neighbours (the
# rule before) find 92 %, and something in 38 to 45 % of good sets.
_APART = 5.25
"""Standard deviations of all other scores, as log-odds, by which the largest have to lie above their mean."""
_CERTAIN = 1e-3
"""Scores count as no nearer to 0 and 1 than this."""


def check_rate(rate: float, name: str = "false_alarm_rate") -> None:
    """Check a false-alarm rate, or another one.

    Raises:
        ValueError: If it is no number between 0 and 1.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1:
        msg = f"{name} has to be a share between 0 and 1, such as 0.05 for one in twenty; got {rate!r}."
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
    """What calibration images promise, in words.

    Args:
        count: Number of calibration images.
        rate: The false-alarm rate.
        left_out: Whether they are the references, each judged by the others.

    Example:
        >>> promise(20, 0.05)
        '5 % false alarms, from 20 images; at most 13.9 % with 95 % confidence'
    """
    asked = f"{100 * rate:.4g} % false alarms, from {count}"
    if left_out:
        return f"{asked} references, each left out in turn; on average at most twice that, usually about it"
    most = false_alarms_at_most(rate, count)
    return f"{asked} images; at most {100 * most:.1f} % with {100 * CONFIDENCE:.0f} % confidence"


def standing_apart(scores: ArrayLike) -> list[int]:
    """Which of the largest scores, at most a tenth of all, are much larger than the rest: perhaps defects.

    Args:
        scores: Scores (n,); where they lie in [0, 1] they are compared as log-odds, which spread more evenly.

    Returns:
        Indices, the largest score first; none for fewer than ten scores.
    """
    values = np.asarray(scores, np.float64)
    if values.min(initial=0) >= 0 and values.max(initial=1) <= 1:
        inside = values.clip(_CERTAIN, 1 - _CERTAIN)
        values = np.log(inside / (1 - inside))
    order = np.argsort(-values)
    for count in range(len(values) // 10, 0, -1):
        rest = values[order[count:]]
        if values[order[count - 1]] > rest.mean() + _APART * rest.std():
            found: list[int] = order[:count].tolist()
            return found
    return []
