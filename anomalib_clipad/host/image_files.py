"""Image files that anomalib's reader gets wrong: grey 16-bit ones, and ones it cannot read at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import Batch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

_SIXTEEN_BIT_SUFFIXES = {".png", ".tif", ".tiff", ".pgm"}
_SIXTEEN_BIT_MODES = {"I", "I;16", "I;16B", "I;16L"}
_FULL_SCALE = 65535


class UnreadableImageError(ValueError):
    """A file of the data set is no image, or is damaged."""


class ImageFiles(Callback):
    """Hands the model what 16-bit files hold, and names the file when one cannot be read, whatever reads the data."""

    def _repair(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, *args: Any, **kwargs: Any) -> None:
        del trainer, pl_module, args, kwargs
        restore_sixteen_bit(batch)

    on_train_batch_start = _repair
    on_validation_batch_start = _repair
    on_test_batch_start = _repair
    on_predict_batch_start = _repair

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Explain a reading error, whose own message may not even name the file.

        Raises:
            UnreadableImageError: If a file of the data set cannot be read.
        """
        del pl_module
        if isinstance(exception, (OSError, SyntaxError)):  # Pillow's errors for damaged files
            for path in _image_paths(trainer):
                _check_readable(path, exception)


def restore_sixteen_bit(batch: Batch) -> None:
    """Replace grey 16-bit images of a batch, in place, by what their files hold, scaled to [0, 1].

    anomalib converts them to RGB through Pillow, which clips every value at 255.
    """
    for index, path in enumerate(batch.image_path or []):
        if Path(path).suffix.lower() not in _SIXTEEN_BIT_SUFFIXES:
            continue
        with Image.open(path) as image:
            if image.mode not in _SIXTEEN_BIT_MODES:
                continue
            grey = torch.from_numpy(np.asarray(image, dtype=np.float32) / _FULL_SCALE)
        height, width = batch.image.shape[-2:]
        restored = resize(grey.expand(3, -1, -1), [height, width], InterpolationMode.BICUBIC)
        batch.image[index] = restored.to(batch.image)


def _image_paths(trainer: Trainer) -> Iterator[str]:
    """Paths of all images the trainer's loaders read."""
    for loaders in (trainer.predict_dataloaders, trainer.test_dataloaders, trainer.val_dataloaders):
        for loader in loaders if isinstance(loaders, list) else [loaders]:
            dataset = getattr(loader, "dataset", None)
            samples = getattr(dataset, "samples", None)
            yield from map(str, getattr(dataset, "image_filenames", [] if samples is None else samples["image_path"]))


def _check_readable(path: str, cause: BaseException) -> None:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError) as error:
        msg = f"The image {path} cannot be read ({error}). Replace it, or take it out of the data set."
        raise UnreadableImageError(msg) from cause
