"""Grey 16-bit images: anomalib reads them through Pillow's conversion to RGB, which clips every value at 255."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from anomalib.data import Batch
from PIL import Image
from torchvision.transforms.v2.functional import resize

_FORMATS = {".png", ".tif", ".tiff", ".pgm"}
_FULL_SCALE = 65535


def restore_sixteen_bit(batch: Batch) -> None:
    """Replace the clipped 16-bit images of a batch, in place, by what their files hold, scaled to [0, 1]."""
    paths = batch.image_path or []
    for index, path in enumerate(paths):
        if Path(path).suffix.lower() not in _FORMATS:
            continue
        with Image.open(path) as image:
            if image.mode not in {"I", "I;16", "I;16B", "I;16L"}:
                continue
            grey = torch.from_numpy(np.asarray(image, dtype=np.float32) / _FULL_SCALE)
        height, width = batch.image.shape[-2:]
        restored = resize(grey.expand(3, -1, -1), [height, width]) if grey.shape != (height, width) else grey
        batch.image[index] = restored.clamp(0, 1).to(batch.image)
