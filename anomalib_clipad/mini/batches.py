"""From pairs of pictures to a training batch: the same crop and colours for the flawless and the damaged part."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from anomalib_clipad.parts.noise import Field, Rng, uniform

from .pool import Shard

PATCH = 16
VISIBLE = 12 / 160**2
"""Share of the whole picture that a defect has to cover in a crop to make it abnormal."""
_MEAN = np.array(open_clip.OPENAI_DATASET_MEAN, np.float32)
_STD = np.array(open_clip.OPENAI_DATASET_STD, np.float32)


class Batch(NamedTuple):
    """Pictures and what is known of them; the first half is flawless, the second the same parts damaged.

    Attributes:
        images: Normalised crops (B, 3, size, size).
        coverage: Share of each patch that is defective (B, N), row by row.
        abnormal: 1 where enough of a defect is in the crop, 0 where nothing, NaN where only a trace (B,).
        kinds: Index of the pair's kind of defect (B,).
        corner: Patch row and column of the crop in the whole picture.
    """

    images: Tensor
    coverage: Tensor
    abnormal: Tensor
    kinds: Tensor
    corner: tuple[int, int]


def make_batch(rng: Rng, shard: Shard, pairs: NDArray[np.int64], size: int, full: int) -> Batch:
    """Crop, turn and recolour pairs of a shard.

    Args:
        rng: Source of the augmentation.
        shard: Where the pictures are.
        pairs: Which pairs.
        size: Height and width of the crops in pixels.
        full: Height and width of the whole picture, to whose scale the crops are brought.
    """
    images: Field = np.empty((2, len(pairs), size, size, 3), np.float32)
    masks = np.zeros((2, len(pairs), size, size), np.float32)
    for i, pair in enumerate(pairs):
        matrix = _crop(rng, shard.masks[pair], size, full)
        for state in range(2):
            images[state, i] = cv2.warpAffine(
                shard.images[pair, state],
                matrix,
                (size, size),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REFLECT_101,
            )
        masks[1, i] = cv2.warpAffine(
            shard.masks[pair].astype(np.float32) / 255, matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101
        )
        images[:, i] = _recolour(rng, images[:, i] / 255)
    images += rng.standard_normal(images.shape, dtype=np.float32) * np.float32(uniform(rng, 0, 0.015))
    pixels = torch.from_numpy(((np.clip(images, 0, 1) - _MEAN) / _STD).reshape(-1, size, size, 3)).permute(0, 3, 1, 2)
    mask = torch.from_numpy(masks.reshape(-1, 1, size, size))
    area = mask.sum(dim=(1, 2, 3))
    abnormal = torch.where(area >= VISIBLE * full**2, 1.0, torch.where(area > 0, torch.nan, 0.0))
    spare = (full - size) // PATCH
    corner = (int(rng.integers(spare + 1)), int(rng.integers(spare + 1)))
    kinds = torch.from_numpy(np.tile(shard.kinds[pairs], 2))
    return Batch(pixels.contiguous(), avg_pool2d(mask, PATCH).flatten(1), abnormal, kinds, corner)


def _crop(rng: Rng, mask: NDArray[np.uint8], size: int, scaled: int) -> Field:
    """Affine map (2, 3) of the picture onto a crop: turned, mirrored, zoomed a little, mostly around the defect."""
    full = len(mask)
    zoom = float(np.exp(uniform(rng, -0.3, 0.3))) * scaled / full
    angle = 90 * int(rng.integers(4)) + (uniform(rng, -30, 30) if rng.random() < 0.5 else 0)
    centre = np.array([full / 2, full / 2])
    if size < scaled:
        reach = size / 2 / zoom
        low, high = min(reach, full / 2), max(full - reach, full / 2)
        centre = np.array([uniform(rng, low, high), uniform(rng, low, high)])
        defective = np.flatnonzero(mask)
        if rng.random() < 0.85 and len(defective):
            y, x = divmod(int(defective[rng.integers(len(defective))]), full)
            jitter = (rng.random(2) - 0.5) * 0.9 * size / zoom
            centre = np.clip(np.array([x, y]) + jitter, low, high)
    matrix: Field = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), angle, zoom)
    if rng.random() < 0.5:
        mirror = np.array([[-1, 0, 2 * centre[0]], [0, 1, 0], [0, 0, 1]])
        matrix = matrix @ mirror
    matrix[:, 2] += size / 2 - centre
    return matrix


def _recolour(rng: Rng, pair: Field) -> Field:
    """Other exposure, contrast, balance and sometimes no colour at all; the same for both pictures."""
    if rng.random() < 0.15:
        pair = np.repeat(pair.mean(axis=-1, keepdims=True), 3, axis=-1)
    elif rng.random() < 0.3:
        pair = pair[..., rng.permutation(3)]
    gain = np.float32(uniform(rng, 0.75, 1.25)) * (1 + (rng.random(3, dtype=np.float32) - 0.5) * np.float32(0.2))
    return np.clip(pair, 0, 1) ** np.float32(np.exp(uniform(rng, -0.3, 0.3))) * gain
