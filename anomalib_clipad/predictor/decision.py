"""From raw outputs to scores, labels and masks: arithmetic that exported files take along, without anomalib."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anomalib_clipad.verdicts.certificate import Certificate
from anomalib_clipad.verdicts.defect_scores import DefectScores
from anomalib_clipad.verdicts.normal_scores import Limits, NormalScores
from anomalib_clipad.vision.detector import Prediction
from anomalib_clipad.vision.surgery import SDP, ScoreScale

from .normalization import min_max, normalize_monotone

STATISTICS = (
    "probability_min",
    "probability_max",
    "peak_min",
    "peak_max",
    "image_min",
    "image_max",
    "image_threshold",
    "pixel_min",
    "pixel_max",
    "pixel_threshold",
)
"""What is fitted to validation data; NaN where nothing is."""


class Certified(Prediction):
    """Predictions with p-values.

    Attributes:
        p_value: Conformal p-value of each image (B,).
        verdict: 0 good, 1 look, 2 defective (B,), where there are known defects and a miss rate; else ``None``.
    """

    p_value: Tensor
    verdict: Tensor | None


class Decision(nn.Module):
    """What ``ClipADPostProcessor`` makes of raw outputs.

    Args:
        statistics: Scalars by the names of ``STATISTICS``.
        scale: The scale of the raw outputs.
        normalize: Whether fitted scores and maps are normalised, with the threshold at 0.5.
        label: Whether there are labels and masks.
        sensitivities: 1 less the thresholds of normalised image scores and maps.
    """

    probability_min: Tensor
    probability_max: Tensor
    peak_min: Tensor
    peak_max: Tensor
    image_min: Tensor
    image_max: Tensor
    image_threshold: Tensor
    pixel_min: Tensor
    pixel_max: Tensor
    pixel_threshold: Tensor

    def __init__(
        self,
        statistics: Mapping[str, Tensor],
        scale: ScoreScale,
        normalize: bool,
        label: bool,
        sensitivities: tuple[float, float],
    ) -> None:
        super().__init__()
        for name in STATISTICS:
            self.register_buffer(name, statistics[name])
        self.scale, self.normalize, self.label, self.sensitivities = scale, normalize, label, sensitivities

    def forward(
        self,
        raw: Prediction,
        image_sensitivity: float | Tensor | None = None,
        pixel_sensitivity: float | Tensor | None = None,
        scale: ScoreScale | None = None,
    ) -> Prediction:
        """Scores (B,), maps (B, H, W), labels and masks.

        Args:
            raw: Scores (B,) and maps (B, H, W) of a detector.
            image_sensitivity: In place of its own.
            pixel_sensitivity: In place of its own.
            scale: In place of its own.
        """
        raw_map = cast("Tensor", raw.anomaly_map)
        anomaly_map, map_threshold = self.values(raw_map, scale)
        score, score_threshold = self.scores(raw.pred_score, raw_map.amax(dim=(-2, -1)), scale)
        if not self.label:
            return Prediction(score, anomaly_map=anomaly_map)
        if self.normalize and image_sensitivity is not None:
            score_threshold = torch.as_tensor(1 - image_sensitivity)
        if self.normalize and pixel_sensitivity is not None:
            map_threshold = torch.as_tensor(1 - pixel_sensitivity)
        return Prediction(
            score, _defective(score, score_threshold), anomaly_map, _defective(anomaly_map, map_threshold)
        )

    @property
    def fitted(self) -> bool:
        """Whether its ranges and thresholds were fitted to images."""
        return not bool(torch.isnan(self.image_min))

    def limits(self) -> Limits | None:
        """The largest score and map value that are not defective, if there are labels."""
        if not self.label:
            return None
        nothing = torch.zeros(1, device=self.image_min.device)
        return Limits(float(self.scores(nothing, nothing)[1]), float(self.values(nothing)[1]))

    def scaled(self, normal: NormalScores) -> NormalScores:
        """Raw scores of normal images, and of known defects, on the scale of its outputs."""
        image_scores, region_scores = self._on_scale(normal)
        defects = normal.defects
        if defects is not None:
            bad_images, bad_regions = self._on_scale(defects)
            defects = replace(defects, image_scores=bad_images, region_scores=bad_regions)
        return replace(normal, image_scores=image_scores, region_scores=region_scores, defects=defects)

    def _on_scale(self, raw: NormalScores | DefectScores) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Image scores and map maxima (n,) on the scale of its outputs."""
        score, peak = (torch.from_numpy(one) for one in (raw.image_scores, raw.region_scores))
        score, peak = score.to(self.image_min.device), peak.to(self.image_min.device)
        image_scores, region_scores = self.scores(score, peak)[0], self.values(peak)[0]
        return image_scores.cpu().numpy(), region_scores.cpu().numpy()

    def values(self, raw_map: Tensor, scale: ScoreScale | None = None) -> tuple[Tensor, Tensor]:
        """Map values of raw ones of any shape, and the threshold on them."""
        scale = scale or self.scale
        fitted = ~torch.isnan(self.image_min)
        midpoint = torch.as_tensor(scale.midpoint, dtype=raw_map.dtype, device=raw_map.device)
        threshold = torch.where(fitted, self.pixel_threshold, midpoint)
        if not self.normalize:
            return raw_map, threshold
        fitted_map = normalize_monotone(raw_map, self.pixel_min, self.pixel_max, threshold)
        return torch.where(fitted, fitted_map, scale.probability(raw_map)), torch.tensor(1.0 - self.sensitivities[1])

    def scores(self, raw_score: Tensor, peak: Tensor, scale: ScoreScale | None = None) -> tuple[Tensor, Tensor]:
        """Image scores (B,) of raw scores and map maxima (B,), and the threshold on them."""
        calibrated = (scale or self.scale).score(raw_score, peak)
        fitted = ~torch.isnan(self.image_min)
        score = torch.where(fitted, self.fused(raw_score, peak, scale), calibrated)
        threshold = torch.where(fitted, self.image_threshold, torch.full_like(self.image_min, 0.5))
        if not self.normalize:
            return score, threshold
        normalized = normalize_monotone(score, self.image_min, self.image_max, threshold)
        return torch.where(fitted, normalized, calibrated), torch.tensor(1.0 - self.sensitivities[0])

    def fused(self, raw_score: Tensor, peak: Tensor, scale: ScoreScale | None = None) -> Tensor:
        """The paper's image score: the sum of two min-maxes (B,), weighted where there are references."""
        scale = scale or self.scale
        scores = min_max(raw_score, self.probability_min, self.probability_max)
        span = (self.pixel_min, self.pixel_max) if scale.by_pixels else (self.peak_min, self.peak_max)
        peaks = min_max(peak, *span)
        return scale.score_weight * scores + scale.peak_weight * peaks


def unfitted() -> Decision:
    """A decision that nothing was fitted to: scores are probabilities, defective above 0.5."""
    return Decision(dict.fromkeys(STATISTICS, torch.tensor(torch.nan)), SDP, True, True, (0.5, 0.5))


def certified(score: Tensor, anomaly_map: Tensor | None, certificate: Certificate, rate: float | Tensor) -> Certified:
    """Scores (B,) and maps (B, H, W) with verdicts at a false-alarm rate.

    Raises:
        ValueError: If so few images allow no verdict at that rate: all would be called good.
    """
    certificate.normal.limits(float(rate))
    rate = torch.as_tensor(rate, dtype=torch.float32, device=score.device)
    verdict = certificate(score, anomaly_map, rate)
    found = Certified(score, verdict.pred_label, anomaly_map, verdict.pred_mask)
    found.p_value, found.verdict = verdict.p_value, verdict.verdict
    return found


def _defective(values: Tensor, threshold: Tensor) -> Tensor:
    """Which values are above the threshold, or NaN: what could not be computed is never called good."""
    return ~(values <= threshold)
