"""Validation during training: the paper's protocol on other images of the training categories."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, normalize, resize

from anomalib_clipad.backbones import Backbone
from anomalib_clipad.parts.categories import TRAINING_CATEGORIES
from anomalib_clipad.parts.defects import DEFECTS
from anomalib_clipad.parts.samples import Sample, named_sample
from anomalib_clipad.text.class_encoder import ClassEncoder
from anomalib_clipad.text.prompts import INDUSTRIAL
from anomalib_clipad.vision.detector import Detector

from .objective import representatives

_SEED = 7_000


class Metrics(NamedTuple):
    """Areas under the ROC curve: of images by the paper's score, by its two parts, and of pixels; pixels' precision."""

    image: float
    probability: float
    peak: float
    pixel: float
    pixel_ap: float


def validation_set(size: int, good: int = 14, defective: int = 2) -> dict[str, list[Sample]]:
    """Pictures of every training category: ``good`` flawless, ``defective`` of each kind of defect."""
    return {
        name: [named_sample(name, "validation", i, None, _SEED, size) for i in range(good)]
        + [named_sample(name, "validation", i, kind, _SEED, size) for kind in DEFECTS for i in range(defective)]
        for name in TRAINING_CATEGORIES
    }


@torch.inference_mode()
def measure(backbone: Backbone, sets: dict[str, list[Sample]]) -> dict[str, Metrics]:
    """Metrics of each category's set."""
    device = next(backbone.clip.parameters()).device
    encoder = ClassEncoder(backbone.clip, backbone.tokenizer, INDUSTRIAL)
    detector = Detector(backbone.clip.visual, backbone.image_size).to(device)
    metrics = {}
    for name, samples in sets.items():
        text = representatives(*encoder.embed(name)).to(device)
        outputs = [detector(images.to(device), text) for images in _batches(samples, backbone)]
        size = list(samples[0].mask.shape)
        maps = resize(torch.cat([output.anomaly_map for output in outputs]).cpu(), size).numpy()
        probability = torch.cat([output.pred_score for output in outputs]).cpu().numpy()
        metrics[name] = _metrics(probability, maps, np.stack([sample.mask for sample in samples]))
    return metrics


def mean_metrics(metrics: dict[str, Metrics]) -> Metrics:
    """Mean over the categories."""
    return Metrics(*np.mean(list(metrics.values()), axis=0).tolist())


def _metrics(probability: NDArray[np.float32], maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> Metrics:
    label, peak = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))
    score = _minmax(probability) + _minmax(peak)
    defective, pixels = masks[:, ::3, ::3].ravel(), maps[:, ::3, ::3].ravel()
    image, by_probability, by_peak = (float(roc_auc_score(label, ranked)) for ranked in (score, probability, peak))
    pixel, precision = (float(metric(defective, pixels)) for metric in (roc_auc_score, average_precision_score))
    return Metrics(image, by_probability, by_peak, pixel, precision)


def _minmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return (values - values.min()) / max(float(np.ptp(values)), 1e-12)


def _batches(samples: list[Sample], backbone: Backbone, size: int = 16) -> Iterable[Tensor]:
    for start in range(0, len(samples), size):
        pixels = torch.from_numpy(np.stack([sample.image for sample in samples[start : start + size]]))
        pixels = resize(pixels.permute(0, 3, 1, 2) / 255, [backbone.image_size] * 2, InterpolationMode.BICUBIC)
        yield normalize(pixels, list(backbone.mean), list(backbone.std))
