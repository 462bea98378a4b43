"""Rendering the training pictures: a shard of them is determined by seed and number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.parts.samples import make_sample
from anomalib_clipad.storage import atomic_folder

from .damage import DAMAGES
from .parts import BUILDERS

RENDERED = 240
"""Height and width of the pictures in pixels."""
FIELDS = ("images", "masks", "kinds", "contrasts")
"""The arrays of a shard, each in a file of its name."""
_AROUND = 8
_PLAIN_AREA = 200 / RENDERED**2


def render_shard(folder: Path, seed: int, number: int, pairs: int) -> Path:
    """Render a shard, if the folder does not have it: pairs of pictures of the same part, flawless and damaged.

    Args:
        folder: Where shards are kept.
        seed: Seed of the training.
        number: Number of the shard.
        pairs: Number of pairs.

    Returns:
        Folder of the shard.
    """
    path = folder / f"{seed}-{number:04d}-{pairs}x{RENDERED}"
    if all((path / f"{name}.npy").exists() for name in FIELDS):
        return path
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, number])
    images = np.empty((pairs, 2, RENDERED, RENDERED, 3), np.uint8)
    masks = np.empty((pairs, RENDERED, RENDERED), np.uint8)
    kinds, contrasts = np.empty(pairs, np.int64), np.empty(pairs, np.float32)
    for i in range(pairs):
        builder, damage = BUILDERS[rng.integers(len(BUILDERS))], DAMAGES[rng.integers(len(DAMAGES))]
        sample = make_sample(builder, int(rng.integers(2**32)), rng, damage.defect, RENDERED)
        images[i, 0], images[i, 1], masks[i] = sample.flawless, sample.image, 255 * sample.mask.astype(np.uint8)
        kinds[i], contrasts[i] = damage.kind, _contrast(sample.flawless, sample.image, sample.mask)
    with atomic_folder(path) as temporary:
        fields: tuple[NDArray[Any], ...] = (images, masks, kinds, contrasts)
        for name, field in zip(FIELDS, fields, strict=True):
            np.save(temporary / f"{name}.npy", field)
    return path


def _contrast(flawless: NDArray[np.uint8], damaged: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    if not mask.any():
        return 0.0
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (
        slice(max(int(rows[0]) - _AROUND, 0), int(rows[-1]) + _AROUND),
        slice(max(int(columns[0]) - _AROUND, 0), int(columns[-1]) + _AROUND),
    )
    change = np.abs(damaged[mask].astype(np.float32) - flawless[mask]).max(axis=1).mean()
    return float(change / (flawless[box].mean(axis=2).std() + 4) * min(mask.mean() / _PLAIN_AREA, 1) ** 0.5)
