"""How the maps of text and of other images are joined (docs/algorithm.md, References)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

SHARES = {"sum": 0.5, "spread": 0.25}
"""Share of the text by default."""
LEAST = 3
"""How many normal images tell a spread."""
_MANY = 10
"""From how many images on one odd image shall not matter."""
_LEVEL = 1e-3
"""Smallest spread, as a share of the largest peak: equal peaks would make a part infinitely sharp."""
_NORMAL = 1.4826
"""Standard deviation of a normal distribution, in median absolute deviations."""


class Joining(NamedTuple):
    """What the joined map and the image score are made of.

    Attributes:
        text: Factor of the text's map.
        references: Factor of the distances.
        score: Weight of the raw image score in the image score.
        peak: Weight of the joined map's maximum in it.
    """

    text: float | Tensor
    references: float | Tensor
    score: float | Tensor
    peak: float | Tensor

    @property
    def by_peak(self) -> bool | Tensor:
        """Whether the image score is the maximum of the joined map alone."""
        return self.score == 0


def published(share: float, by_patches: bool) -> Joining:
    """The plain sum, as published: factors are as the shares, the larger one 1.

    Args:
        share: Share of the text, in [0, 1].
        by_patches: Whether the reader makes the image score by a rule of its own, as of ``Reader``.
    """
    text, references = _scaled(share, 1 - share)
    return Joining(text, references, 1.0, 0.0) if by_patches else Joining(text, references, text, 1.0)


def by_spread(share: float, text: float, references: float) -> Joining:
    """Each part in units of the spread of its own peaks among normal images; the larger factor is 1.

    Args:
        share: Share of the text, in [0, 1].
        text: Spread of the peaks of the text's maps.
        references: Spread of the peaks of the distances' maps.
    """
    return Joining(*_scaled(share / text, (1 - share) / references), 0.0, 1.0)


def _scaled(text: float, references: float) -> tuple[float, float]:
    larger = max(text, references)
    return text / larger, references / larger


def spread(peaks: Tensor, robust: bool = False) -> Tensor:
    """Spread of the largest values of maps (n,): a scalar.

    The standard deviation; from ten images on, or where the images may show defects, by the median absolute deviation,
    which a few odd images do not move.

    Args:
        peaks: These values, n > 1.
        robust: Whether the images may show defects.
    """
    found = outspread(peaks)[1] if robust or len(peaks) >= _MANY else peaks.std()
    return found.clamp(min=_LEVEL * peaks.abs().max().clamp(min=_LEVEL))


def outspread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Median of values (n,), and their standard deviation by the median absolute deviation: scalars."""
    median = values.median()
    return median, _NORMAL * (values - median).abs().median()
