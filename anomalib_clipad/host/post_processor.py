"""Post-processing: the paper's image score, adaptive thresholds, normalised outputs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from anomalib.data import Batch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.post_processing import PostProcessor
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from anomalib_clipad.vision.surgery import SDP, Calibration

from .normalization import min_max, normalize_monotone
from .statistics import required


class ImageScores(Metric):
    """Image probability, map maximum and label of every validation image; gathered over processes."""

    full_state_update = False
    probability: list[Tensor]
    peak: list[Tensor]
    label: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("probability", "peak", "label"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, probability: Tensor, peak: Tensor, label: Tensor) -> None:
        """Add images: three tensors (B,)."""
        self.probability.append(probability)
        self.peak.append(peak)
        self.label.append(label)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """All images: three tensors (n,)."""
        return dim_zero_cat(self.probability), dim_zero_cat(self.peak), dim_zero_cat(self.label)


class ClipADPostProcessor(PostProcessor):
    """anomalib's post-processor with CLIP-AD's scores.

    **With validation data** it fits the paper's image score, min-max of the image probability plus min-max of the
    map's maximum, and anomalib's adaptive F1 thresholds, and normalises in the same order with the threshold at 0.5
    (``normalize_monotone`` says what rounding does to the order). Validation = test gives the paper's protocol. Without
    masks the pixel threshold is the one that tells normal from abnormal images best by their map's maximum.

    **Without** it, outputs are probabilities: the map is the stage-mean two-way CLIP softmax, the score the mean of
    the image probability and the map's maximum; 0.5 means "as close to damaged as to flawless".

    With ``enable_normalization=False`` scores and maps keep their own scale and labels use the fitted thresholds.
    Image and pixel thresholds never stand in for each other: they are of different scales. A score or map value that is
    NaN, such as those of an image with NaN in it, counts as defective.

    Args:
        **kwargs: Those of ``anomalib.post_processing.PostProcessor``.
    """

    probability_min: Tensor
    probability_max: Tensor
    peak_min: Tensor
    peak_max: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"enable_threshold_matching": False, **kwargs})
        self.calibration: Calibration = SDP
        self._image_scores = ImageScores()
        for name in ("probability_min", "probability_max", "peak_min", "peak_max"):
            self.register_buffer(name, torch.tensor(torch.nan))

    def serve(self, calibration: Calibration) -> None:
        """Learn the scale of a detector's outputs: those of SDP, SDP+ and each memory differ."""
        self.calibration = calibration

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Collect the batch's scores and maps."""
        del trainer, pl_module, args, kwargs
        peak = outputs.anomaly_map.amax(dim=(-2, -1))
        self._image_scores.update(outputs.pred_score, peak, outputs.gt_label)
        self._pixel_min_max_metric.update(outputs)
        self._pixel_threshold_metric.update(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit the fusion, then thresholds and ranges of the fused score and of the maps."""
        del trainer
        if not self._image_scores.update_called:
            return
        probability, peak, label = self._image_scores.compute()
        self._image_scores.reset()
        _copy_range(probability, self.probability_min, self.probability_max)
        _copy_range(peak, self.peak_min, self.peak_max)
        score = self._fuse(probability, peak, self.calibration)
        _copy_range(score, self.image_min, self.image_max)
        self._image_threshold_metric.update(_scored(score, label))
        if not self._pixel_threshold_metric.update_called:  # no masks
            self._pixel_threshold_metric.update(cast("Batch", SimpleNamespace(anomaly_map=peak, gt_mask=label)))
        _copy_range(self._pixel_min_max_metric.compute(), self.pixel_min, self.pixel_max)
        self._image_threshold.copy_(self._image_threshold_metric.compute())
        self._pixel_threshold.copy_(self._pixel_threshold_metric.compute())
        for metric in (self._pixel_min_max_metric, self._image_threshold_metric, self._pixel_threshold_metric):
            metric.reset()
        decided, _ = self._decide(probability, peak, self.calibration)
        self._correct(getattr(pl_module, "evaluator", None), decided, label)

    @staticmethod
    def _correct(evaluator: Evaluator | None, score: Tensor, label: Tensor) -> None:
        """Give validation metrics of image scores the fused ones, which are known only now."""
        metrics: list[Any] = list(evaluator.val_metrics) if evaluator is not None else []
        for metric in metrics:
            if set(getattr(metric, "fields", ())) == {"pred_score", "gt_label"}:
                metric.reset()
                metric.update(_scored(score, label))

    def post_process_batch(self, batch: Batch) -> None:
        """Replace the model's raw outputs in a batch by post-processed ones."""
        processed = self(InferenceBatch(pred_score=batch.pred_score, anomaly_map=batch.anomaly_map))
        batch.pred_score, batch.anomaly_map = processed.pred_score, processed.anomaly_map
        if batch.pred_label is None:
            batch.pred_label = processed.pred_label
        if batch.pred_mask is None:
            batch.pred_mask = processed.pred_mask

    def forward(self, predictions: InferenceBatch, calibration: Calibration | None = None) -> InferenceBatch:
        """Post-process raw outputs of ``ClipADModel``.

        Args:
            predictions: Scores (B,) and maps (B, H, W).
            calibration: Their scale, in place of the one that was learnt.
        """
        calibration = calibration or self.calibration
        probability, raw_map = required(predictions.pred_score, "pred_score"), required(predictions.anomaly_map, "map")
        fitted = ~torch.isnan(self.image_min)
        undecided = torch.as_tensor(calibration.undecided, dtype=raw_map.dtype, device=raw_map.device)
        anomaly_map, map_threshold = raw_map, torch.where(fitted, self.pixel_threshold, undecided)
        if self.enable_normalization:
            fitted_map = normalize_monotone(raw_map, self.pixel_min, self.pixel_max, map_threshold)
            anomaly_map = torch.where(fitted, fitted_map, calibration.probability(raw_map))
            map_threshold = self.normalized_pixel_threshold
        score, score_threshold = self._decide(probability, raw_map.amax(dim=(-2, -1)), calibration)
        return InferenceBatch(
            pred_score=score,
            anomaly_map=anomaly_map,
            pred_label=_defective(score, score_threshold) if self.enable_thresholding else None,
            pred_mask=_defective(anomaly_map, map_threshold) if self.enable_thresholding else None,
        )

    def _decide(self, raw_score: Tensor, peak: Tensor, calibration: Calibration) -> tuple[Tensor, Tensor]:
        """Image scores (B,) of raw scores and map maxima (B,), and the threshold on them."""
        fitted = ~torch.isnan(self.image_min)
        weights = calibration.score_weight + calibration.peak_weight
        parts = calibration.score_weight * raw_score + calibration.peak_weight * calibration.probability(peak)
        calibrated = parts / weights
        score = torch.where(fitted, self._fuse(raw_score, peak, calibration), calibrated)
        threshold = torch.where(fitted, self.image_threshold, torch.full_like(self.image_min, 0.5))
        if not self.enable_normalization:
            return score, threshold
        normalized = normalize_monotone(score, self.image_min, self.image_max, threshold)
        return torch.where(fitted, normalized, calibrated), self.normalized_image_threshold

    def _fuse(self, raw_score: Tensor, peak: Tensor, calibration: Calibration) -> Tensor:
        """The paper's image score: the sum of two min-maxes (B,), weighted where there are references."""
        scores = min_max(raw_score, self.probability_min, self.probability_max)
        peaks = min_max(peak, self.peak_min, self.peak_max)
        return calibration.score_weight * scores + calibration.peak_weight * peaks


def _defective(values: Tensor, threshold: Tensor) -> Tensor:
    """Which values are above the threshold, or NaN: what could not be computed is never called good."""
    return ~(values <= threshold)


def _scored(score: Tensor, label: Tensor) -> Batch:
    """What a metric of image scores reads of a batch."""
    return cast("Batch", SimpleNamespace(pred_score=score, gt_label=label))


def _copy_range(values: Tensor, low: Tensor, high: Tensor) -> None:
    low.copy_(values.min())
    high.copy_(values.max())
