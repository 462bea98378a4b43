"""SDP+ as Lightning trains it: CLIP as it is, four linear layers, one auxiliary data set (paper section 3.4)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from anomalib.data import Batch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Adam, Optimizer

from anomalib_clipad.data.auxiliary import Auxiliary
from anomalib_clipad.torch_model import ClipADModel
from .files import save_adapter

from .feature_cache import CacheKind, FeatureCache
from .losses import adapter_losses, total

logger = logging.getLogger(__name__)
ADAPTER_FILE = Path("weights/adapter.safetensors")
"""Where the layers are written after every epoch, in the folder of the run."""


class AdapterTraining(LightningModule):
    """What a Lightning module needs to train the layers of its ``ClipADModel``.

    Attributes:
        model: The model with its layers, or without.
        trained: Whether the layers have learnt anything yet.
        learning_rate: That of Adam.
        feature_cache: Where patch features are kept between epochs.
    """

    model: ClipADModel
    trained: bool
    learning_rate: float
    feature_cache: CacheKind

    def configure_optimizers(self) -> Optimizer | None:
        """Adam on the layers; none where there is nothing to train."""
        if self.model.adapter is None:
            return None
        return Adam(self.model.adapter.parameters(), lr=self.learning_rate)

    def on_fit_start(self) -> None:
        """Encode the prompts of all training categories.

        Raises:
            TypeError: If the data module is no ``Auxiliary``.
            ValueError: If features of augmented pictures are to be cached.
        """
        data = self._auxiliary()
        if self.feature_cache != "none" and data.train_augmentations is not None:
            msg = "Augmented pictures differ from epoch to epoch: feature_cache has to be 'none' with augmentations."
            raise ValueError(msg)
        names = sorted(set(data.class_names.values()))
        logger.info("Training SDP+ on %d pictures of %s.", len(data.class_names), ", ".join(names))
        self._texts = {name: self.model.encode_class(name) for name in names}
        self._features = FeatureCache(self.feature_cache)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Focal and dice loss of every layer; each picture is compared with its own category's text.

        Raises:
            ValueError: If the loss is not finite; the message names the batch.
        """
        paths = [str(path) for path in batch.image_path]
        patches = self._features.get(paths, lambda: self.model.tap_patches(batch.image))
        names = self._auxiliary().class_names
        text = torch.stack([self._texts[names[path]] for path in paths]).to(batch.image.device)
        assert self.model.adapter is not None  # or there were no optimizer
        probabilities = self.model.adapter([tokens.to(text.device) for tokens in patches], text)
        losses = adapter_losses(probabilities, batch.gt_mask.float())
        loss = total(losses)
        if not torch.isfinite(loss):
            msg = (
                f"The loss is {float(loss.detach())} in epoch {self.current_epoch}, batch {batch_idx}: "
                f"{', '.join(paths)}. The layers of the last finished epoch are kept. "
                "Check those pictures and masks, or lower learning_rate."
            )
            raise ValueError(msg)
        size = len(paths)
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size)
        self.log_dict({f"train_{name}": value for name, value in losses.items()}, batch_size=size)
        return loss

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """From the first step on the layers are trained ones."""
        del args, kwargs
        self.trained = True

    def on_train_epoch_end(self) -> None:
        """Write the layers, so that those of the last finished epoch are there whatever happens next."""
        if self.trainer.is_global_zero and self.model.adapter is not None:
            path = Path(self.trainer.default_root_dir) / ADAPTER_FILE
            save_adapter(self.model.adapter, path, self.adapter_settings())
            logger.info("The SDP+ layers of epoch %d are in %s.", self.current_epoch, path)

    def on_fit_end(self) -> None:
        """Let go of text features and patch features."""
        self._texts, self._features = {}, FeatureCache("none")

    def adapter_settings(self) -> dict[str, Any]:
        """What the layers are, and are being, trained under, as plain data."""
        options = {name: self.hparams.get(name) for name in ("backbone", "pretrained", "image_size")}
        settings = {**options, "image_tower": self.model.fingerprint, **self.model.options()}
        if self._trainer is not None and self.trainer.training:
            data = self._auxiliary()
            settings |= {
                "learning_rate": self.learning_rate,
                "epochs": self.current_epoch + 1,
                "batch_size": data.train_batch_size,
                "data": data.source.name,
                "categories": data.categories,
            }
        return settings

    def _auxiliary(self) -> Auxiliary:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, Auxiliary):
            msg = (
                f"SDP+ is trained on anomalib_clipad.data.Auxiliary, which knows the category of each picture; got "
                f"{type(data).__name__}. Give your data module as its `source`, and the one to test on as `target`."
            )
            raise TypeError(msg)
        return data
