"""Feature surgery: from features and the two representative vectors to responses (paper section 3.3)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

LOGIT_SCALE = 100.0
"""CLIP's inverse temperature."""


def class_weights(cls_features: Tensor, text_features: Tensor) -> Tensor:
    """How much an image as a whole resembles each state: 2 * softmax of cosines, without temperature.

    Args:
        cls_features: L2-normalised CLS features (B, D).
        text_features: Representative vectors, normal and abnormal: (D, 2), or (B, D, 2), one pair per image.

    Returns:
        Weights (B, 2) with mean 1.
    """
    return 2 * cosines(cls_features, text_features).softmax(dim=-1)


def abnormal_response(patch_features: Tensor, cls_features: Tensor, text_features: Tensor) -> Tensor:
    """Abnormal response of each patch.

    With p_c = w_c <f, t_c> it is p_a less the mean over both states, (p_a - p_n) / 2.

    Args:
        patch_features: L2-normalised surgery features (B, N, D).
        cls_features: L2-normalised CLS features (B, D).
        text_features: Representative vectors, normal and abnormal: (D, 2), or (B, D, 2), one pair per image.

    Returns:
        Responses (B, N), in units of cosine.

    Example:
        One image, whose CLS is as close to one state as to the other, with a flawless and a damaged patch.

        >>> text_features = torch.eye(2)
        >>> cls_features = torch.tensor([[0.7071, 0.7071]])
        >>> abnormal_response(torch.eye(2)[None], cls_features, text_features)
        tensor([[-0.5000,  0.5000]])
    """
    response = (patch_features @ text_features) * class_weights(cls_features, text_features).unsqueeze(1)
    return (response[..., 1] - response[..., 0]) / 2


def abnormal_probability(cls_features: Tensor, text_features: Tensor) -> Tensor:
    """Probability (B,) that an image shows the abnormal state: CLIP's own two-way classification."""
    return (LOGIT_SCALE * cosines(cls_features, text_features)).softmax(dim=-1)[:, 1]


def towards_abnormal(text_features: Tensor) -> Tensor:
    """Abnormal less normal vector (D, 1), or (B, D, 1): a product with it is the difference of two cosines."""
    return (text_features[..., 1] - text_features[..., 0]).unsqueeze(-1)


def cosines(cls_features: Tensor, text_features: Tensor) -> Tensor:
    """Cosines (B, 2) of each image with its two vectors."""
    return (cls_features.unsqueeze(1) @ text_features).squeeze(1)


def calibrate_map(anomaly_map: Tensor) -> Tensor:
    """Turn the sum of four stages' responses into a two-way CLIP probability per pixel.

    The mean stage's cosines s_a and s_n differ by 2 * map / 4, so softmax(100 * (s_n, s_a))[a] is sigmoid(50 * map):
    0.5 where a pixel is as close to damaged as to flawless (docs/algorithm.md, Scores without validation data).
    """
    return torch.sigmoid(LOGIT_SCALE / 2 * anomaly_map)


def calibrate_adapted_map(anomaly_map: Tensor) -> Tensor:
    """Turn the map of SDP+, the sum of four probabilities and of SDP's small responses, into a mean per pixel.

    The responses can lead outside [0, 1], so the mean is compressed into (0, 1), in the same order: 0.5 stays 0.5, 0.9
    becomes 0.892 and 1 becomes 0.96.
    """
    distance = anomaly_map / 2 - 1
    return 0.5 + 0.5 * distance / (1 + distance**8) ** 0.125


def calibrate_reference_map(anomaly_map: Tensor, midpoint: float | Tensor) -> Tensor:
    """Turn the map of a model with references into a value in [0, 1): 0.5 at ``midpoint``, 0.8 at twice that."""
    squared = (anomaly_map / midpoint) ** 2
    return squared / (1 + squared)


class ScoreScale(NamedTuple):
    """How a detector's raw outputs become probabilities, and how they become the image score.

    Attributes:
        probability: Increasing function of raw map values.
        midpoint: The raw value whose probability is 0.5.
        score_weight: Weight of the raw image score in the image score.
        peak_weight: Weight of the map's maximum in it.
        raw_probability: Increasing function of raw image scores, where these are no probabilities yet.
        by_pixels: Whether maxima of maps are ranged by all pixels of validation data, in place of all maxima.
    """

    probability: Callable[[Tensor], Tensor]
    midpoint: float | Tensor
    score_weight: float | Tensor = 1.0
    peak_weight: float | Tensor = 1.0
    raw_probability: Callable[[Tensor], Tensor] | None = None
    by_pixels: bool = False

    def score(self, raw_score: Tensor, peak: Tensor) -> Tensor:
        """Image scores (B,) in [0, 1] without validation data: the weighted mean of raw scores and map maxima (B,)."""
        own = raw_score if self.raw_probability is None else self.raw_probability(raw_score)
        parts = self.score_weight * own + self.peak_weight * self.probability(peak)
        return parts / (self.score_weight + self.peak_weight)


def __getattr__(name: str) -> Any:
    if name != "Calibration":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    warnings.warn("Calibration is now called ScoreScale; the old name goes with version 0.4.", DeprecationWarning, 2)
    return ScoreScale


SDP = ScoreScale(calibrate_map, 0.0)
SDP_PLUS = ScoreScale(calibrate_adapted_map, 2.0)
