"""Training of an adaptor: CLIP as it is, layers, one auxiliary data set."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from anomalib.data import ImageBatch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from anomalib_clipad.adaptors.base import Lesson
from anomalib_clipad.adaptors.files import save_adapter
from anomalib_clipad.adaptors.losses import total
from anomalib_clipad.adaptors.registry import ADAPTORS
from anomalib_clipad.adaptors.stages import Stage, stage_at
from anomalib_clipad.backbones import load_backbone
from anomalib_clipad.data.auxiliary import Auxiliary
from anomalib_clipad.host.statistics import required
from anomalib_clipad.text.methods import check_options
from anomalib_clipad.torch_model import ClipADModel

from .feature_cache import CacheKind, FeatureCache

logger = logging.getLogger(__name__)
ADAPTER_FILE = Path("weights/adapter.safetensors")
"""Where the layers are written after every epoch, in the folder of the run."""
_COMPARED = 32


class AdapterTraining:
    """One training of a model's layers: its text features, its patch features, its losses, its file.

    Args:
        model: A model with layers.
        data: What it is trained on.
        feature_cache: Where patch features are kept between epochs.
        epochs: How many there are; by default as many as the authors have.

    Raises:
        TypeError: If the data module is no ``Auxiliary``.
        ValueError: If the model has no layers, there are fewer epochs than stages, features of augmented pictures are
            to be cached, or RVS options of the data do not belong to the model's method.
    """

    def __init__(self, model: ClipADModel, data: object, feature_cache: CacheKind, epochs: int | None = None) -> None:
        if not isinstance(data, Auxiliary):
            msg = (
                f"Layers are trained on anomalib_clipad.data.Auxiliary, which knows the category of each picture; got "
                f"{type(data).__name__}. Give your data module as its `source`, and the one to test on as `target`."
            )
            raise TypeError(msg)
        if model.adapter is None:
            msg = f"This model is SDP, which has nothing to train; take a variant with layers: {', '.join(ADAPTORS)}."
            raise ValueError(msg)
        if feature_cache != "none" and data.train_augmentations is not None:
            msg = "Augmented pictures differ from epoch to epoch: feature_cache has to be 'none' with augmentations."
            raise ValueError(msg)
        stages = model.adapter.course
        self.epochs = sum(stage.epochs for stage in stages) if epochs is None else epochs
        if self.epochs < len(stages) > 1:
            msg = f"{model.title} is trained in {len(stages)} stages and needs an epoch for each; got epochs={epochs}."
            raise ValueError(msg)
        data.batch_size_at = partial(_batch_size, stages, self.epochs)  # no method: it would keep all features
        names = sorted(set(data.class_names.values()))
        logger.info("Training %s on %d pictures of %s.", model.title, len(data.class_names), ", ".join(names))
        self.model, self.adapter, self.data = model, model.adapter, data
        check_options(model.settings.rvs, data.rvs_options or {})
        self._texts = {name: model.encode(name, data.rvs_options) for name in names}
        self._kind, self._stage, self._features = feature_cache, -1, FeatureCache("none")
        self._sample: list[tuple[Tensor, Tensor, str]] = []
        self._pitch = max(int(data.train_data.samples.label_index.sum()) // _COMPARED, 1)
        self._defective = 0

    def stage_at(self, epoch: int) -> int:
        """The number of the stage of an epoch."""
        return stage_at(self.adapter.course, epoch, self.epochs)

    def losses(self, batch: ImageBatch, epoch: int = 0) -> dict[str, Tensor]:
        """The losses of the layers by name; each picture is compared with its own category's text.

        Args:
            batch: The pictures.
            epoch: Counted from 0.

        Raises:
            ValueError: If their sum is not finite; the message names the pictures.
        """
        images, masks = required(batch.image, "image"), required(batch.gt_mask, "gt_mask")
        paths = [str(path) for path in required(batch.image_path, "image_path")]
        stage = self.stage_at(epoch)
        if stage != self._stage:
            self._stage = stage
            self._features = FeatureCache(self._kind if self.adapter.keeps(stage) else "none")
        features = self._features.get(paths, lambda: self.model.tokens(images, stage))
        text = self._text([self.data.class_names[path] for path in paths]).to(images.device)
        labels = required(batch.gt_label, "gt_label")
        lesson = Lesson([part.to(text.device) for part in features], text, masks.float(), labels, stage)
        losses = self.adapter.losses(self.model.detector.view, lesson)
        loss = total(losses)
        if not torch.isfinite(loss):
            msg = (
                f"The loss is {float(loss.detach())} on {', '.join(paths)}. The layers of the last finished epoch are "
                "kept. Check those pictures and masks, or lower learning_rate."
            )
            raise ValueError(msg)
        return losses

    def _text(self, names: Sequence[str]) -> Tensor:
        """The vectors of classes (B, D, 2); where they are trained too, those of now."""
        texts = self._texts
        if self.adapter.trains_text:
            encode, options = self.adapter.encode, self.data.rvs_options
            texts = {name: encode(self.model.encoder, name, options) for name in sorted(set(names))}
        return torch.stack([texts[name] for name in names])

    def sample(self, batch: ImageBatch) -> None:
        """Keep some defective pictures of a batch, evenly spread over an epoch, for ``compare``."""
        images, masks = required(batch.image, "image"), required(batch.gt_mask, "gt_mask")
        for image, mask, path in zip(images, masks, required(batch.image_path, "image_path"), strict=True):
            if mask.any():
                if self._defective % self._pitch == 0:
                    self._sample.append((image, mask, self.data.class_names[str(path)]))
                self._defective += 1

    @torch.no_grad()
    def compare(self) -> tuple[float, float]:
        """Pixel AUROC of SDP and of the layers on the sampled pictures, as they are now; NaN without any."""
        if not self._sample:
            return math.nan, math.nan
        images, masks, names = zip(*self._sample, strict=True)
        truth = torch.cat([(mask.flatten() > 0.5).cpu() for mask in masks]).int()

        def found(model: ClipADModel, texts: Tensor) -> float:
            both = zip(images, texts.to(model.device), strict=True)
            maps = [model.detector(image[None], text).anomaly_map.flatten().cpu() for image, text in both]
            return float(binary_auroc(torch.cat(maps), truth))

        plain = self._without()
        texts = {name: plain.encode(name, self.data.rvs_options) for name in set(names)}
        return found(plain, torch.stack([texts[name] for name in names])), found(self.model, self._text(names))

    def _without(self) -> ClipADModel:
        """The same model without layers: SDP, on CLIP as it was before the layers changed it."""
        settings = self.model.settings
        chosen = None if settings.smoothing == self.adapter.smoothing else settings.smoothing
        plain = load_backbone(settings.backbone, settings.pretrained, settings.image_size)
        model = ClipADModel(plain, replace(settings, variant="sdp", smoothing=chosen), self.model.cache)
        return model.to(self.model.device)

    def save(self, folder: Path, epochs: int, learning_rate: float) -> None:
        """Write the layers, so that those of the last finished epoch are there whatever happens next.

        Args:
            folder: Folder of the run.
            epochs: Number of finished epochs.
            learning_rate: That of Adam.
        """
        trained_by = {
            "learning_rate": learning_rate,
            "epochs": epochs,
            "batch_size": [self.data.train_batch_size or stage.batch_size for stage in self.adapter.course],
            "as_coded": self.adapter.as_coded,
            "data": self.data.source.name,
            "categories": self.data.categories,
        }
        path = folder / ADAPTER_FILE
        save_adapter(self.adapter, path, self.model.settings, self.model.fingerprint, trained_by)
        logger.info("The %s layers of %d epochs are in %s.", self.model.title, epochs, path)


def _batch_size(stages: Sequence[Stage], epochs: int, epoch: int) -> int:
    """The authors' number of pictures per batch in an epoch."""
    return stages[stage_at(stages, epoch, epochs)].batch_size
