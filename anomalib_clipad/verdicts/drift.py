"""Does the calibration still fit? A conformal test martingale beside the scores.

Each score gets a p-value among the calibration images and all images seen since. While they are all alike, those
p-values are uniform and independent, whatever the scores' distribution, and a game of betting against that is fair: the
chance that the stake ever grows 1,000-fold is at most 1 in 1,000 (Ville). So growth is evidence of a change. The bets
are those of the Simple Jumper (Vovk et al., Algorithmic Learning in a Random World, algorithm 8.1; ``crepes``).
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anomalib_clipad.storage import atomic_folder

_FORMAT = "anomalib_clipad drift, version 1"
_JUMP = 0.01
"""Share of the stake that changes between bets at each image."""


class Drift:
    """Watches a stream of image scores.

    True defects count as well; the stake bears about one in twenty of them. A file keeps the state, eight bytes for
    each image.

    Args:
        calibration: Image scores of the normal images (n,), as of ``Certificate``.
        level: Chance of an alarm, over all time, where nothing has changed.

    Attributes:
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
        self._scores = np.sort(np.asarray(calibration, np.float64)).tolist()
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

    def save(self, path: Path) -> None:
        """Write the state: the whole file or nothing.

        Raises:
            OSError: If it cannot be written.
        """
        about = {"format": _FORMAT, "level": self.level, "seen": self.seen, "alarmed_at": self.alarmed_at}
        with atomic_folder(path.absolute().parent) as folder, (folder / path.name).open("wb") as file:
            scores = np.asarray(self._scores, np.float64)
            np.savez(file, about=np.array(json.dumps(about)), scores=scores, accounts=self._accounts)

    @classmethod
    def load(cls, path: Path) -> Drift:
        """Go on from a file.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged, or another file.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                about: dict[str, Any] = json.loads(str(content["about"]))
                scores, accounts = content["scores"], content["accounts"]
            if about["format"] != _FORMAT:
                raise ValueError(about["format"])  # noqa: TRY301  # another version's
            drift = cls([0.0], about["level"])
            drift.seen, drift.alarmed_at = about["seen"], about["alarmed_at"]
            drift._scores, drift._accounts = scores.tolist(), accounts.reshape(drift._accounts.shape)
        except FileNotFoundError:
            raise
        except Exception as error:  # zip, numpy and JSON readers each raise their own
            msg = f"{path} holds no state of a drift alarm, or is damaged ({error}). Delete it to begin anew."
            raise ValueError(msg) from error
        return drift
