"""Post-processing: the paper's image score, adaptive thresholds, normalised outputs."""

from __future__ import annotations

from dataclasses import replace
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

from anomalib_clipad.predictor.decision import STATISTICS, Decision, certified
from anomalib_clipad.verdicts.certificate import Certificate
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.vision.detector import Prediction
from anomalib_clipad.vision.surgery import SDP, ScoreScale

from .statistics import drop_statistics, required


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


class CertifiedBatch(InferenceBatch):
    """Predictions with p-values; a tuple of anomalib's four fields, as its inferencers expect.

    Attributes:
        p_value: Conformal p-value of each image (B,).
        verdict: 0 good, 1 look, 2 defective (B,), where there are known defects and a miss rate; else ``None``.
    """

    p_value: Tensor
    verdict: Tensor | None = None


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

    **With a false-alarm rate** labels and masks follow conformal p-values among the scores of normal images, and
    predictions have ``p_value`` too; see ``Certificate``. Scores and maps stay what they are. Without statistics
    these are probabilities: a validation set without defects fits none, since they would depend on the images they
    are compared with.

    Args:
        false_alarm_rate: Largest share of normal images that are called defective; it may be changed at any time.
        **kwargs: Those of ``anomalib.post_processing.PostProcessor``.
    """

    probability_min: Tensor
    probability_max: Tensor
    peak_min: Tensor
    peak_max: Tensor

    normal: NormalScores | None  # raw outputs for the calibration images, before any statistics

    def __init__(self, false_alarm_rate: float | None = None, **kwargs: Any) -> None:
        super().__init__(**{"enable_threshold_matching": False, **kwargs})
        self.false_alarm_rate = false_alarm_rate
        self.normal = None
        self.scale: ScoreScale = SDP
        self._image_scores = ImageScores()
        for name in ("probability_min", "probability_max", "peak_min", "peak_max"):
            self.register_buffer(name, torch.tensor(torch.nan))

    @property
    def _checkpoint_config_keys(self) -> tuple[str, ...]:
        return (*super()._checkpoint_config_keys, "false_alarm_rate")

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what a checkpoint holds, but a false-alarm rate that was asked for."""
        asked = self.false_alarm_rate
        super().load_checkpoint_config(config)
        self.false_alarm_rate = config.get("false_alarm_rate") if asked is None else asked

    @property
    def certificate(self) -> Certificate | None:
        """The calibration images' scores, on the scale of its outputs, if there are any and a rate is asked for."""
        normal = self.normal_scores()
        return None if normal is None or normal.rate is None else Certificate(normal).to(self.image_min.device)

    def normal_scores(self) -> NormalScores | None:
        """Scores of the calibration images, in their order, on the scale of its outputs, if there are any."""
        if self.normal is None:
            return None
        return replace(self.decision.scaled(self.normal), rate=self.false_alarm_rate)

    def forget(self) -> list[str]:
        """Let go of thresholds, ranges and calibration, which belong to other scores; what that was, in words."""
        fitted = ["thresholds and ranges"] if drop_statistics(self) else []
        calibrated = ["calibration"] if self.normal is not None else []
        if self.normal is not None and self.normal.defects is not None:
            calibrated.append("known defects")
        self.normal = None
        return fitted + calibrated

    @property
    def decision(self) -> Decision:
        """What it makes of raw outputs, with the statistics of now."""
        statistics = {name: getattr(self, f"_{name}" if name.endswith("threshold") else name) for name in STATISTICS}
        flags = (self.enable_normalization, self.enable_thresholding)
        return Decision(statistics, self.scale, *flags, (self.image_sensitivity, self.pixel_sensitivity))

    def serve(self, scale: ScoreScale) -> None:
        """Learn the scale of a detector's outputs: those of SDP, SDP+ and each memory differ."""
        self.scale = scale

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
        if self.false_alarm_rate is not None and not label.any():
            for metric in (self._pixel_min_max_metric, self._pixel_threshold_metric):
                metric.reset()
            return
        _copy_range(probability, self.probability_min, self.probability_max)
        _copy_range(peak, self.peak_min, self.peak_max)
        _copy_range(self._pixel_min_max_metric.compute(), self.pixel_min, self.pixel_max)
        score = self.decision.fused(probability, peak)
        _copy_range(score, self.image_min, self.image_max)
        self._image_threshold_metric.update(_scored(score, label))
        if not self._pixel_threshold_metric.update_called:  # no masks
            self._pixel_threshold_metric.update(cast("Batch", SimpleNamespace(anomaly_map=peak, gt_mask=label)))
        self._image_threshold.copy_(self._image_threshold_metric.compute())
        self._pixel_threshold.copy_(self._pixel_threshold_metric.compute())
        for metric in (self._pixel_min_max_metric, self._image_threshold_metric, self._pixel_threshold_metric):
            metric.reset()
        decided, _ = self.decision.scores(probability, peak)
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
        if isinstance(processed, CertifiedBatch):
            batch.p_value = processed.p_value  # type: ignore[attr-defined]  # beside anomalib's fields
            if processed.verdict is not None:
                batch.verdict = processed.verdict  # type: ignore[attr-defined]

    def forward(
        self,
        predictions: InferenceBatch,
        image_sensitivity: float | Tensor | None = None,
        pixel_sensitivity: float | Tensor | None = None,
    ) -> InferenceBatch:
        """Post-process raw outputs of ``ClipADModel``.

        Args:
            predictions: Scores (B,) and maps (B, H, W).
            image_sensitivity: In place of its own, where outputs are normalised: the threshold is 1 less it. Verdicts
                at a false-alarm rate follow that alone.
            pixel_sensitivity: The same for masks.
        """
        score = required(predictions.pred_score, "pred_score")
        raw = Prediction(score, anomaly_map=required(predictions.anomaly_map, "map"))
        found = self.decision(raw, image_sensitivity, pixel_sensitivity)
        certificate = self.certificate
        if certificate is None or not self.enable_thresholding:
            return InferenceBatch(*found)
        sure = certified(found.pred_score, found.anomaly_map, certificate, self.false_alarm_rate or 0)
        batch = CertifiedBatch(*sure)
        batch.p_value, batch.verdict = sure.p_value, sure.verdict
        return batch


def _scored(score: Tensor, label: Tensor) -> Batch:
    """What a metric of image scores reads of a batch."""
    return cast("Batch", SimpleNamespace(pred_score=score, gt_label=label))


def _copy_range(values: Tensor, low: Tensor, high: Tensor) -> None:
    low.copy_(values.min())
    high.copy_(values.max())
