"""One verdict for several pictures of one part (docs/thresholds.md, Several pictures of one part).

Five views at a rate of 5 % each call a fifth of all good parts defective. So a part is ranked as a whole: in each view
among the calibration parts and itself, and what counts is its highest rank in any view; of parts with the same rank the
one that lies further out there, in median absolute deviations of its view, is the rarer one. The new part is treated as
one of the calibration parts, so under exchangeability of parts the p-value is valid, however the views depend on each
other (Vovk et al., Algorithmic Learning in a Random World, transductive conformal prediction).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .conformal import TIE, allowed, check_rate, images_needed


class PartScore(NamedTuple):
    """How rare a part is among normal ones.

    Attributes:
        p_value: (1 + number of normal parts that are as rare) / (n + 1).
        view: The view in which it is rarest.
    """

    p_value: float
    view: str


class NormalParts:
    """Scores of normal parts, each seen in the same views.

    Args:
        scores: Image scores (n, V).
        views: Names of the V views.

    Raises:
        ValueError: If there are none, one is no number, or their numbers differ.

    Example:
        Two views of four normal parts; the new part stands out in the second one.

        >>> normal = NormalParts([[0.1, 0.2], [0.2, 0.1], [0.3, 0.4], [0.4, 0.3]], ["left", "right"])
        >>> normal.score([0.15, 0.9])
        PartScore(p_value=0.2, view='right')
    """

    def __init__(self, scores: ArrayLike, views: Sequence[str]) -> None:
        self.scores: NDArray[np.float64] = np.array(scores, np.float64)
        self.views = tuple(views)
        if self.scores.ndim != 2 or not self.scores.size or self.scores.shape[1] != len(self.views):
            msg = f"Expected scores of shape (parts, {len(self.views)}), one for each view; got {self.scores.shape}."
            raise ValueError(msg)
        if not np.isfinite(self.scores).all():
            msg = f"{int((~np.isfinite(self.scores)).sum())} scores of normal parts are no numbers (NaN or infinite)."
            raise ValueError(msg)
        self._as_high = np.stack([_as_high(view, view) for view in self.scores.T], axis=1)

    def __len__(self) -> int:
        return len(self.scores)

    def score(self, scores: ArrayLike) -> PartScore:
        """Rank a part.

        Args:
            scores: Its image scores (V,), in the order of ``views``; what is no number is the highest.
        """
        new = np.asarray(scores, np.float64)
        new = np.where(np.isnan(new), self.scores.max(axis=0) + 1, new)
        everything = np.vstack([self.scores, new])
        centre = np.median(everything, axis=0)
        spread = np.median(np.abs(everything - centre), axis=0).clip(min=TIE)
        own = 1 + (self.scores >= new - TIE).sum(axis=0)  # parts that score as high in each view, itself among them
        others = self._as_high + (new >= self.scores - TIE)
        (rank,), (further,) = _best(own[None], (new - centre)[None] / spread)
        ranks, distances = _best(others, (self.scores + TIE - centre) / spread)
        as_rare = int(((ranks < rank) | ((ranks == rank) & (distances >= further))).sum())
        view = np.where(own == rank, (new - centre) / spread, -np.inf).argmax()
        return PartScore((1 + as_rare) / (len(self) + 1), self.views[int(view)])

    def check(self, rate: float) -> None:
        """Check that a rate allows any verdict.

        Raises:
            ValueError: If there are too few parts.
        """
        check_rate(rate)
        if not allowed(rate, len(self)):
            msg = (
                f"A false-alarm rate of {rate:g} for parts takes {images_needed(rate)} normal parts or more, each seen "
                f"in all views; there are {len(self)}. Calibrate on more, or allow a higher rate."
            )
            raise ValueError(msg)


def _as_high(scores: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of ``others`` are as high as each score (n,)."""
    ordered = np.sort(others + TIE)
    return np.asarray(len(ordered) - np.searchsorted(ordered, scores))


def _best(ranks: NDArray[np.int64], distances: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The highest rank of each part in any view (n,), 1 being the highest, and how far out it lies there (n,)."""
    best = ranks.min(axis=1)
    return best, np.where(ranks == best[:, None], distances, -np.inf).max(axis=1)
