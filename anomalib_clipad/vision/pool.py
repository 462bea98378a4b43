"""Unlabelled images that judge each other, none of which is known to be normal (MuSc; docs/algorithm.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from .detector import Alone, Detector, Evidence, Joined, Prediction
from .joining import Joining, outspread, spread
from .references import mutual_scores, ranged, rescore, scores_against
from .smoothing import smooth
from .surgery import ScoreScale, calibrate_reference_map

_SPREADS = 3.0
"""How many spreads above the median of a pool the values are that are neither normal nor abnormal."""
_SEED = 0
FEW = 8
"""From how many images on it is worth while."""


def choose(count: int, limit: int) -> list[int]:
    """Which of ``count`` images are compared with: all, or ``limit`` of them by a fixed seed, in order."""
    return next(drawn(count, limit, lambda: 0), [])


def drawn(count: int, limit: int, had: Callable[[], int]) -> Iterator[list[int]]:
    """Which of ``count`` images to try, in order: those of ``choose``, then others for those that cannot be read.

    Args:
        count: How many images there are.
        limit: How many are compared with at most.
        had: How many could be read by now.
    """
    order = np.random.default_rng(_SEED).permutation(count).tolist()
    while order and (missing := limit - had()) > 0:
        places, order = sorted(order[:missing]), order[missing:]
        yield places


class Pool:
    """Images that are compared with each other, and with images from outside; copies count once.

    Args:
        detector: Which joins text and distances.
        evidence: What it has seen of each image of the pool.
        keys: Names of the images, see ``key_of``.
        scores: Mutual scores (n, N), where they have been computed elsewhere.

    Attributes:
        scale: How the outputs of ``judge`` become probabilities: 0.5 is three spreads above the pool's median.

    Raises:
        ValueError: If there is only one image.
    """

    def __init__(
        self, detector: Detector, evidence: Evidence, keys: Sequence[str], scores: Tensor | None = None
    ) -> None:
        first = first_of_each(keys)
        if len(first) < len(keys):
            evidence, keys = picked(evidence, first), [keys[row] for row in first]
            scores = None
        self.detector, self.evidence = detector, evidence
        reader = detector.reader
        if scores is None:
            scores = mutual_scores(evidence.tokens, reader.radii)
        self.distance = reader.mutual_unit * scores  # (n, N)
        self.rows = {key: row for row, key in enumerate(keys)}
        self.joining = self._joined()
        self.peak = self._peak(detector.judge(evidence, self.distance, self.joining))  # (n,)
        self.score = self._image_scores(self.peak, evidence.cls, evidence.probability)  # (n,)
        self._midpoint = _outlying(self.score)
        scale = detector.reference_scale(_outlying(self.peak), self.joining)
        self.scale: ScoreScale = scale._replace(score_weight=1.0, peak_weight=0.0, raw_probability=None)

    def judge(self, evidence: Evidence, keys: Sequence[str]) -> Prediction:
        """Compare images with the pool.

        Args:
            evidence: What the detector has seen of them, B images.
            keys: Their names: an image of the pool is not compared with itself.

        Returns:
            ``anomaly_map`` as of ``Detector.judge``; ``pred_score``: the rescored map maximum plus the image
            probability on the pool's scale (the text's share permitting), or the reader's own score rescored, in
            [0, 1), 0.5 at three spreads above the pool's median.
        """
        rows = [self.rows.get(key) for key in keys]
        outside = [index for index, row in enumerate(rows) if row is None]
        distance = self.distance[[row or 0 for row in rows]]
        if outside:
            reader, seen = self.detector.reader, evidence.tokens[outside]
            distance[outside] = reader.mutual_unit * scores_against(seen, self.evidence.tokens, reader.radii)
        prediction = self._judge(evidence, distance, rows)
        if evidence.text_map is None:
            return prediction
        return Joined.of(prediction, partial(self._alone, evidence, distance, rows))

    def _joined(self) -> Joining:
        """How text and distances are joined: from eight images on by the spreads of their peaks."""
        detector, text_map = self.detector, self.evidence.text_map
        if text_map is None or len(self.distance) < FEW:
            return detector.joining_of(None)
        maps = detector.reader.text_part(text_map), smooth(self.distance, detector.reference_matrix)
        text, images = (float(spread(one.amax(dim=(-2, -1)), robust=True)) for one in maps)
        return detector.joining_of((text, images))

    @cached_property
    def _without_text(self) -> Pool:
        """The same images, compared with each other alone."""
        scores = self.distance / self.detector.reader.mutual_unit
        return Pool(self.detector, _wordless(self.evidence), list(self.rows), scores)

    def _alone(self, evidence: Evidence, distance: Tensor, rows: Sequence[int | None]) -> Alone:
        """Scores of the text, and of the pool without it."""
        images = self._without_text._judge(_wordless(evidence), distance, rows).pred_score
        text_map = cast("Tensor", evidence.text_map)
        return Alone(self.detector.score_by_text(evidence, text_map.shape[-2:]), images)

    def _judge(self, evidence: Evidence, distance: Tensor, rows: Sequence[int | None]) -> Prediction:
        """``judge``, by distances (B, N) and the rows of the images in the pool."""
        prediction = self.detector.judge(evidence, distance, self.joining)
        peak = self._peak(prediction)
        scores = [
            self.score[row] if row is not None else self._score_beside(evidence, peak, index)
            for index, row in enumerate(rows)
        ]
        probability = calibrate_reference_map(torch.stack(scores), self._midpoint)
        return prediction._replace(pred_score=probability)

    def _peak(self, prediction: Prediction) -> Tensor:
        """What is rescored (B,): maxima of maps or, with ``by_patches``, joined scores."""
        if self.detector.reader.by_patches and not self.joining.by_peak:
            return prediction.pred_score
        return cast("Tensor", prediction.anomaly_map).amax(dim=(-2, -1))

    def _score_beside(self, evidence: Evidence, peak: Tensor, index: int) -> Tensor:
        """Score of an image from outside, beside those of the pool, which do not change."""
        own = slice(index, index + 1)
        cls = torch.cat([self.evidence.cls, evidence.cls[own]])
        joined = None
        if evidence.probability is not None and self.evidence.probability is not None:
            joined = torch.cat([self.evidence.probability, evidence.probability[own]])
        return self._image_scores(torch.cat([self.peak, peak[own]]), cls, joined)[-1]

    def _image_scores(self, peak: Tensor, cls: Tensor, probability: Tensor | None) -> Tensor:
        """The paper's sum of two min-maxes over all images, the second one rescored: (n,).

        By spread, or with ``by_patches``, it is the second one alone: the text has its part in that already.
        """
        scores = rescore(peak, cls)
        if probability is None or self.joining.by_peak or self.detector.reader.by_patches:
            return scores
        return scores + self.joining.score * ranged(probability)


def _wordless(evidence: Evidence) -> Evidence:
    """The same without what the text says."""
    return evidence._replace(probability=None, text_map=None)


def _outlying(values: Tensor) -> Tensor:
    """Three spreads above the median, by the median absolute deviation, which a few outliers do not move: a scalar."""
    median, spread = outspread(values)
    return (median + _SPREADS * spread).clamp(min=torch.finfo(values.dtype).tiny)


def joined(parts: Sequence[Evidence]) -> Evidence:
    """The evidence of several batches as one."""
    columns = zip(*parts, strict=True)
    return Evidence(*(None if column[0] is None else torch.cat(column) for column in columns))  # type: ignore[arg-type]


def first_of_each(keys: Sequence[str]) -> list[int]:
    """Rows of the first image of each key, in order."""
    rows: dict[str, int] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, row)
    return list(rows.values())


def picked(evidence: Evidence, rows: Sequence[int]) -> Evidence:
    """The evidence of some images of a batch."""
    parts = (None if value is None else value[list(rows)] for value in evidence)
    return Evidence(*parts)  # type: ignore[arg-type]


def key_of(image: Tensor) -> str:
    """Name of an image by its content: images (3, H, W) that are equal have the same one."""
    return hashlib.blake2b(image.detach().cpu().contiguous().numpy().tobytes(), digest_size=16).hexdigest()
