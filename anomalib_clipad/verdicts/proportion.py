"""How large a share is, by a random sample of it."""

from __future__ import annotations

from .conformal import CONFIDENCE


def interval(count: int, of: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Clopper-Pearson interval of a share, which holds for any share and sample size (Clopper and Pearson 1934).

    Args:
        count: How many of the sample.
        of: Size of the sample, 1 or more.
        confidence: Share of samples whose interval holds the true share, at least.

    Example:
        >>> [round(edge, 3) for edge in interval(3, 12)]
        [0.055, 0.572]
    """
    from scipy.stats import binomtest  # takes half a second

    low, high = binomtest(count, of).proportion_ci(confidence, method="exact")
    return float(low), float(high)


def in_words(count: int, of: int) -> str:
    """A share with its interval, in words.

    Example:
        >>> in_words(3, 12)
        '25 %, between 5.5 and 57.2 % with 95 % confidence'
    """
    low, high = interval(count, of)
    sure = f"{100 * CONFIDENCE:.0f} % confidence"
    return f"{100 * count / of:.3g} %, between {100 * low:.1f} and {100 * high:.1f} % with {sure}"
