"""Does the calibration still fit? A conformal test martingale beside the scores.

Each score gets a p-value among the calibration images and all images seen since. While they are all alike, those
p-values are uniform and independent, whatever the scores' distribution, and a game of betting against that is fair: the
chance that the stake ever grows 1,000-fold is at most 1 in 1,000 (Ville). So growth is evidence of a change. The bets
are those of the Simple Jumper (Vovk et al., Algorithmic Learning in a Random World, algorithm 8.1; ``crepes``).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

_JUMP = 0.01
"""Share of the stake that changes between bets at each image."""


class Drift:
    """Watches a stream of image scores.

    True defects count as well; the stake bears about one in twenty of them.

    Args:
        calibration: Image scores of the normal images (n,), as of ``Certificate``.
        level: Chance of an alarm, over all time, where nothing has changed.

    Attributes:
        calibration: As given, sorted.
        evidence: The stake, 1 at the start.
        seen: Number of images since the calibration.
        alarmed_at: Number of the image with which the stake reached 1 / level, if it did.

    Raises:
        ValueError: If the level is no share, or there are no scores.

    Example:
        Scores that rise above all known ones are no accident.

        >>> drift = Drift(np.linspace(0, 1, 50))
        >>> drift.extend([0.3, 0.8, 0.1, 0.6])
        False
        >>> drift.extend([1 + step / 10 for step in range(40)])
        True
    """

    def __init__(self, calibration: ArrayLike, level: float = 0.001) -> None:
        from crepes.martingales import EpsilonBettingFunction  # takes a second

        if isinstance(level, bool) or not 0 < level < 1:
            msg = f"The level of a drift alarm has to be a share between 0 and 1, such as 0.001; got {level!r}."
            raise ValueError(msg)
        self.calibration = np.sort(np.asarray(calibration, np.float64))
        self._scores = self.calibration.tolist()
        if not self._scores or not math.isfinite(sum(self._scores)):
            msg = "Drift is seen against the scores of normal images, which have to be numbers; there are none."
            raise ValueError(msg)
        self.level, self.seen = level, 0
        self.alarmed_at: int | None = None
        self._betting = EpsilonBettingFunction()
        self._accounts = np.full(len(self._betting.E), 1 / len(self._betting.E))

    @property
    def evidence(self) -> float:
        """The stake."""
        return float(self._accounts.sum())

    @property
    def alarm(self) -> bool:
        """Whether the calibration is no longer believable."""
        return self.alarmed_at is not None

    def update(self, score: float) -> bool:
        """Take in the next image's score; whether there is an alarm, now or since before.

        Where scores are equal, chance decides, by a seed of the image's number. NaN counts as the highest score.
        """
        score = float(score) if not math.isnan(score) else math.inf
        below, not_above = bisect_left(self._scores, score), bisect_right(self._scores, score)
        share = np.random.default_rng(self.seen).random()
        ties = not_above - below + 1
        p_value = (len(self._scores) - not_above + share * ties) / (len(self._scores) + 1)
        insort(self._scores, score)
        self._accounts = self._accounts * self._betting.apply(np.array([p_value]))[0]
        stake = self._accounts.sum()
        self._accounts = (1 - _JUMP) * self._accounts + _JUMP * stake / len(self._accounts)
        self.seen += 1
        if self.alarmed_at is None and stake >= 1 / self.level:
            self.alarmed_at = self.seen
        return self.alarm

    def extend(self, scores: Sequence[float]) -> bool:
        """Take in several scores, in their order."""
        for score in scores:
            self.update(score)
        return self.alarm

    def __str__(self) -> str:
        if self.alarmed_at is None:
            return f"{self.seen} images since the calibration, which still fits (evidence {self.evidence:.3g})"
        return (
            f"the calibration no longer fits: 1 in {1 / self.level:,.0f}, since image {self.alarmed_at} of "
            f"{self.seen}. Look at lamp, focus and parts, then calibrate anew."
        )
