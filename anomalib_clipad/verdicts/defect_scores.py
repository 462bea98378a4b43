"""Scores of known defects, and what is unlike them (docs/thresholds.md, Three verdicts).

The p-value of a score among known defects is (1 + number of defects that score as low) / (n + 1): how rare so low a
score is among them. It is the conformal p-value of ``NormalScores`` with the order of scores turned round. Images whose
p-value is at most a rate may be called good; of defects that come from where the known ones came from, at most that
share is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .conformal import CONFIDENCE, TIE, allowed, check_rate, false_alarms_at_most, images_needed

VERDICTS = ("good", "look", "defective")
"""The three verdicts, by their values 0, 1 and 2."""


@dataclass(frozen=True, eq=False)
class DefectScores:
    """Scores of known defects, which verdicts at a miss rate compare with.

    Attributes:
        image_scores: Image scores (n,), float32.
        region_scores: Maxima of their maps (n,), float32.
        rate: Largest share of defects that are called good; ``None`` to know the scores alone.
        identities: Plain data that tells which images they are, one for each image; empty where that is not known.

    Raises:
        ValueError: If there are no scores, one is no number, their numbers differ, the rate is none, or there are too
            few defects for it.

    Example:
        Of four known defects one scores as low as 0.65.

        >>> defects = DefectScores(np.array([0.6, 0.7, 0.8, 0.9]), np.array([0.6, 0.7, 0.8, 0.9]), rate=0.4)
        >>> defects.p_values([0.65, 0.5]).tolist()
        [0.4, 0.2]
    """

    image_scores: NDArray[np.float32]
    region_scores: NDArray[np.float32]
    rate: float | None = None
    identities: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for name in ("image_scores", "region_scores"):
            scores = checked(getattr(self, name), name, "known defect")
            object.__setattr__(self, name, scores)
            if scores.shape != self.image_scores.shape:
                msg = f"Expected one of the {name} for each of {len(self)} known defects; got {len(scores)}."
                raise ValueError(msg)
        if self.identities and len(self.identities) != len(self):
            msg = f"Expected one identity for each of {len(self)} known defects; got {len(self.identities)}."
            raise ValueError(msg)
        if self.rate is not None:
            check_defects(self.rate, len(self))

    def __len__(self) -> int:
        return len(self.image_scores)

    @property
    def rank(self) -> int:
        """The rank among these and an image, counted from the lowest score, down to which it may be called good."""
        return 0 if self.rate is None else allowed(self.rate, len(self))

    @cached_property
    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Image scores and map maxima (n,), ``TIE`` lower, in rising order: what is not below one is as defective."""
        padded = (np.sort(scores - np.float32(TIE)) for scores in (self.image_scores, self.region_scores))
        return cast("tuple[NDArray[np.float32], NDArray[np.float32]]", tuple(padded))

    def ranks(self, scores: ArrayLike, regions: bool = False) -> NDArray[np.int64]:
        """Ranks (m,) of scores (m,), 1 being lower than all; what is no number has the last one.

        Args:
            scores: Image scores; or map maxima.
            regions: Whether they are map maxima.
        """
        bounds = self.bounds[regions].astype(np.float64)
        return np.asarray(1 + np.searchsorted(bounds, np.asarray(scores, np.float64), side="right"))

    def p_values(self, scores: ArrayLike) -> NDArray[np.float64]:
        """p-values (m,) of image scores (m,), in [1 / (n + 1), 1]."""
        return np.asarray(self.ranks(scores) / (len(self) + 1))

    def promise(self) -> str:
        """What they promise, in words; nothing without a rate."""
        if self.rate is None:
            return ""
        most = false_alarms_at_most(self.rate, len(self))  # the same Beta distribution
        return (
            f"{100 * self.rate:.4g} % of defects called good, from {len(self)} known ones; at most {100 * most:.1f} % "
            f"with {100 * CONFIDENCE:.0f} % confidence, and nothing for kinds of defects that are not among them"
        )

    @property
    def hint(self) -> str | None:
        """On which defect it hangs what is good, where it is a single one."""
        if self.rank != 1:
            return None
        lowest = int(self.image_scores.argmin())
        name = self.identities[lowest]["name"] if self.identities else f"defect {lowest + 1}"
        return (
            f"What is good follows from one known defect alone, the least suspicious of {len(self)}: {name}. If it "
            "shows none, tick it good, or remove it: fewer images are good because of it. From "
            f"{images_needed(cast('float', self.rate) / 2)} defects on no single one decides."
        )

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "image_scores": self.image_scores.tolist(),
            "region_scores": self.region_scores.tolist(),
            "miss_rate": self.rate,
            "identities": self.identities,
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> DefectScores:
        """What ``to_plain`` gave.

        Raises:
            ValueError, KeyError, TypeError: If it is damaged.
        """
        return cls(data["image_scores"], data["region_scores"], data["miss_rate"], tuple(data["identities"]))

    def digest(self) -> str:
        """A name of what verdicts follow from: scores, in any order, and rate."""
        content = hashlib.sha256(np.concatenate(self.bounds).astype("<f4").tobytes())
        content.update(json.dumps(self.rate).encode())
        return content.hexdigest()


def check_defects(rate: float, count: int) -> None:
    """Check that a miss rate is one, and that so many known defects allow any verdict "good" at it.

    Raises:
        ValueError: If it is not so.
    """
    check_rate(rate, "miss_rate")
    if not allowed(rate, count):
        msg = (
            f"A miss rate of {rate:g} takes {images_needed(rate)} known defects or more; there are {count}. Find more "
            "in an audit (`anomalib-clipad inspect --audit`), or allow a higher rate."
        )
        raise ValueError(msg)


def checked(scores: ArrayLike, name: str, what: str) -> NDArray[np.float32]:
    """Scores (n,) of images, as float32.

    Args:
        scores: The scores.
        name: What they are called.
        what: What kind of image each is of.

    Raises:
        ValueError: If they are of another shape, there are none, or one is no number.
    """
    found = np.array(scores, np.float32)
    if found.ndim != 1 or not len(found):
        msg = f"Expected {name} of shape (n,), one for each {what}; got {found.shape}."
        raise ValueError(msg)
    if not np.isfinite(found).all():
        count = int((~np.isfinite(found)).sum())
        msg = f"{count} of the {name} are no numbers (NaN or infinite). Remove the images that give them."
        raise ValueError(msg)
    return found
