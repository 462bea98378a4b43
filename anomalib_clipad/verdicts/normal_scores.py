"""Scores of normal images, and every verdict that follows from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .conformal import TIE, allowed, check_rate, images_needed, promise, standing_apart
from .defect_scores import DefectScores, checked


class Limits(NamedTuple):
    """The largest values that are not defective.

    Attributes:
        score: Of an image.
        region: Of a map.
    """

    score: float
    region: float


@dataclass(frozen=True, eq=False)
class NormalScores:
    """Scores of normal images, which verdicts at a false-alarm rate compare with.

    The p-value of a score is (1 + number of normal images that score as high) / (n + 1). An image is defective where
    its p-value is at most the rate; a region where that of its peak is, among the maxima of the normal images' maps.
    What is no number is defective, with the smallest p-value.

    Attributes:
        image_scores: Image scores (n,), float32.
        region_scores: Maxima of their maps (n,), float32.
        rate: False-alarm rate of the model's own, if it has one.
        left_out: Whether they are references, each judged by the others.
        computed_in: Number format of the tower that gave the scores.
        identities: Plain data that tells which images they are, one for each image; empty where that is not known.
        defects: Scores of known defects by the same model, if there are any: with a miss rate there are three verdicts.

    Raises:
        ValueError: If there are no scores, one is no number, their numbers differ, or the rate is none.

    Example:
        Of four normal images one scores as high as 0.35.

        >>> normal = NormalScores(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.6, 0.7, 0.8]), rate=0.2)
        >>> normal.p_value(0.35), round(normal.limits().score, 4)
        (0.4, 0.4)
    """

    image_scores: NDArray[np.float32]
    region_scores: NDArray[np.float32]
    rate: float | None = None
    left_out: bool = False
    computed_in: str = "float32"
    identities: tuple[dict[str, Any], ...] = ()
    defects: DefectScores | None = None

    def __post_init__(self) -> None:
        for name in ("image_scores", "region_scores"):
            scores = checked(getattr(self, name), name, "normal image")
            object.__setattr__(self, name, scores)
            if scores.shape != self.image_scores.shape:
                msg = f"Expected {name} of shape (n,), one for each normal image; got {scores.shape}."
                raise ValueError(msg)
        if self.identities and len(self.identities) != len(self):
            msg = f"Expected one identity for each of {len(self)} normal images; got {len(self.identities)}."
            raise ValueError(msg)
        if self.rate is not None:
            check_rate(self.rate)

    def __len__(self) -> int:
        return len(self.image_scores)

    @classmethod
    def of(cls, scored: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]], **about: Any) -> NormalScores:
        """Of what a model found in normal images.

        Args:
            scored: Scores (B,) and maps (B, h, w), batch after batch.
            **about: The other attributes.
        """
        found = [(score, anomaly_map.max(axis=(1, 2))) for score, anomaly_map in scored]
        if not found:
            msg = "There are no normal images to calibrate on."
            raise ValueError(msg)
        images, regions = map(np.concatenate, zip(*found, strict=True))
        return cls(images, regions, **about)

    @cached_property
    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Image scores and map maxima (n,), ``TIE`` higher, in rising order: what is not above one is as normal."""
        padded = (np.sort(scores + np.float32(TIE)) for scores in (self.image_scores, self.region_scores))
        return cast("tuple[NDArray[np.float32], NDArray[np.float32]]", tuple(padded))

    def p_values(self, scores: ArrayLike) -> NDArray[np.float64]:
        """p-values (m,) of image scores (m,), in [1 / (n + 1), 1]."""
        return _p_values(self.bounds[0], scores)

    def p_value(self, score: float) -> float:
        """How rare so high an image score is."""
        return float(_p_values(self.bounds[0], score))

    def region_p_value(self, peak: float) -> float:
        """How rare so high a map value is, anywhere in a map."""
        return float(_p_values(self.bounds[1], peak))

    def limits(self, rate: float | None = None) -> Limits:
        """The largest image score, and the largest map value, that is not defective.

        Args:
            rate: False-alarm rate in place of its own.

        Raises:
            ValueError: If so few images allow no verdict at that rate.
        """
        rate = self._rate(rate)
        rank = min(allowed(rate, len(self)), len(self))
        if not rank:
            msg = (
                f"A false-alarm rate of {rate:g} takes {images_needed(rate)} normal images or more; the model is "
                f"calibrated on {len(self)}. Calibrate it on more, or allow a higher rate."
            )
            raise ValueError(msg)
        return Limits(*(float(values[-rank]) for values in self.bounds))

    @property
    def three(self) -> bool:
        """Whether there are three verdicts: known defects with a miss rate."""
        return self.defects is not None and self.defects.rate is not None

    def judge(self, scores: ArrayLike, rate: float | None = None, regions: bool = False) -> NDArray[np.int8]:
        """Verdicts (m,) on scores (m,): 0 good, 1 look, 2 defective, as ``VERDICTS`` has them.

        *Defective* if the p-value among normal images is at most the rate, *good* if that among known defects is at
        most theirs, and *look* if neither is so, or both. What is no number is never good.

        Args:
            scores: Image scores; or map maxima.
            rate: False-alarm rate in place of its own.
            regions: Whether they are map maxima.

        Raises:
            ValueError: If there are no known defects with a miss rate, or too few normal images for the rate.

        Example:
            >>> normal, bad = np.array([0.1, 0.2, 0.3]), np.array([0.6, 0.7, 0.8])
            >>> scores = NormalScores(normal, normal, 0.25, defects=DefectScores(bad, bad, 0.25))
            >>> scores.judge([0.15, 0.9, 0.5]).tolist()
            [0, 2, 1]

            A score between both is rare among normal images and among defects alike.
        """
        if self.defects is None or self.defects.rate is None:
            msg = "Three verdicts take known defects and a miss rate, such as 0.1; this calibration has none."
            raise ValueError(msg)
        limit = np.float64(self.limits(rate)[regions])
        values = np.asarray(scores, np.float64)
        defective, good = ~(values <= limit), self.defects.ranks(values, regions) <= self.defects.rank
        return (1 + defective.astype(np.int8) - good.astype(np.int8)).astype(np.int8)

    def promise(self, rate: float | None = None) -> str:
        """What they promise, in words, at a rate in place of their own."""
        said = promise(len(self), self._rate(rate), self.left_out)
        return f"{said}; {self.defects.promise()}" if self.defects is not None and self.three else said

    def standing_apart(self) -> list[int]:
        """Which images score so much higher than the rest, or have so high a peak, that they may show defects."""
        return sorted({*standing_apart(self.image_scores), *standing_apart(self.region_scores)})

    def name(self, place: int) -> str:
        """What one of the images is called."""
        return str(self.identities[place]["name"]) if self.identities else f"image {place + 1}"

    def doubt(self) -> str | None:
        """What looks wrong about them, in words, if anything does."""
        places = self.standing_apart()
        if not places:
            return None
        return (
            f"The scores of {', '.join(map(self.name, places))} stand apart from those of the other calibration "
            "images. If they show defects, remove them: each of them hides defects of its kind."
        )

    def to_json(self) -> str:
        """For the metadata of a file."""
        data: dict[str, Any] = {
            "image_scores": self.image_scores.tolist(),
            "region_scores": self.region_scores.tolist(),
            "false_alarm_rate": self.rate,
            "leave_one_out": self.left_out,
            "computed_in": self.computed_in,
            "identities": self.identities,
        }
        return json.dumps(data if self.defects is None else {**data, "defects": self.defects.to_plain()})

    @classmethod
    def from_json(cls, text: str) -> NormalScores:
        """What ``to_json`` wrote; version 0.2.0 wrote neither number format nor identities.

        Raises:
            ValueError: If it is damaged.
        """
        try:
            data = json.loads(text)
            images, regions = (np.array(data[name], np.float32) for name in ("image_scores", "region_scores"))
            about = (data["false_alarm_rate"], data["leave_one_out"], data.get("computed_in", "float32"))
            defects = DefectScores.from_plain(data["defects"]) if "defects" in data else None
            return cls(images, regions, *about, tuple(data.get("identities", ())), defects)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"The calibration scores are damaged ({error}). Export or calibrate the model anew."
            raise ValueError(msg) from error

    def digest(self) -> str:
        """A name of what verdicts follow from: scores, in any order, rate, whether they were left out, and defects."""
        content = hashlib.sha256(np.concatenate(self.bounds).astype("<f4").tobytes())
        content.update(json.dumps([self.rate, self.left_out]).encode())
        if self.defects is not None:
            content.update(self.defects.digest().encode())
        return content.hexdigest()

    def _rate(self, rate: float | None) -> float:
        rate = self.rate if rate is None else rate
        if rate is None:
            msg = "These normal scores have no false-alarm rate of their own; pass a rate, such as 0.05."
            raise ValueError(msg)
        check_rate(rate)
        return rate


def _p_values(bounds: NDArray[np.float32], scores: ArrayLike) -> NDArray[np.float64]:
    """(1 + number of bounds at least as high) / (n + 1); what is no number is sorted behind all of them."""
    below = np.searchsorted(bounds.astype(np.float64), np.asarray(scores, np.float64))
    return np.asarray((1 + len(bounds) - below) / (len(bounds) + 1))
