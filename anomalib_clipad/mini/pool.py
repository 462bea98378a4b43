"""The training pictures: rendered once into shards on disk, determined by seed, number and rendering."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm.auto import trange

from anomalib_clipad.parts.categories import RANDOM_BUILDERS, REGULAR_BUILDERS, TRAINING_CATEGORIES, Builder
from anomalib_clipad.parts.defects import DEFECTS
from anomalib_clipad.parts.samples import make_sample
from anomalib_clipad.storage import atomic_folder

KINDS = tuple(DEFECTS)
RENDERED = 240
SHARD = 500
_NAMED = 0.25
_AROUND = 8
_PLAIN_AREA = 90 / 160**2
_CHANGED = 76


@dataclass(frozen=True)
class Rendering:
    """What the pictures of a pool are.

    Attributes:
        name: Name of the pool.
        size: Height and width in pixels, reduced from 240 if less.
        builders: Parts of no name.
    """

    name: str
    size: int
    builders: tuple[Builder, ...]


COARSE = Rendering("coarse", 160, RANDOM_BUILDERS)
FINE = Rendering("fine", RENDERED, RANDOM_BUILDERS + REGULAR_BUILDERS)


@dataclass(frozen=True)
class Shard:
    """Pairs of pictures of the same part.

    Attributes:
        images: Flawless and damaged picture (n, 2, size, size, 3) of uint8.
        masks: How much of a pixel the defect changed (n, size, size), 255 for all of it.
        kinds: Index into ``KINDS`` (n,).
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    kinds: NDArray[np.int64]

    def plainest(self, share: float) -> NDArray[np.int64]:
        """The pairs whose defects stand out most from the surface, in the order of the shard."""
        count = round(share * len(self.kinds))
        return np.sort(np.argsort(-self._contrasts, kind="stable")[:count])

    @cached_property
    def _contrasts(self) -> NDArray[np.float64]:
        """How much a defect changes its pixels, relative to how much the surface around varies (n,)."""
        return np.array(
            [_contrast(pair[0], pair[1], mask > _CHANGED) for pair, mask in zip(self.images, self.masks, strict=True)]
        )


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


def render_shard(folder: Path, rendering: Rendering, seed: int, number: int, pairs: int = SHARD) -> Shard:
    """Render a shard, or read it if the folder has it.

    Three quarters are parts of no name, the others of the training categories in random styles.

    Args:
        folder: Where shards are kept.
        rendering: What the pictures are.
        seed: Seed of the training.
        number: Number of the shard.
        pairs: Number of pairs.
    """
    path = folder / f"{rendering.name}-{seed}-{number:03d}-{pairs}x{rendering.size}.npz"
    if not path.exists():
        rng = np.random.default_rng([seed, number])
        named = tuple(TRAINING_CATEGORIES.values())
        images = np.empty((pairs, 2, rendering.size, rendering.size, 3), np.uint8)
        masks = np.empty((pairs, rendering.size, rendering.size), np.uint8)
        kinds = rng.integers(len(KINDS), size=pairs)
        for i in trange(pairs, desc=f"{rendering.name.capitalize()} pictures {number}", leave=False):
            builders = named if rng.random() < _NAMED else rendering.builders
            builder = builders[rng.integers(len(builders))]
            sample = make_sample(builder, int(rng.integers(2**32)), rng, KINDS[kinds[i]], RENDERED)
            images[i, 0], images[i, 1] = _reduce(sample.flawless, rendering.size), _reduce(sample.image, rendering.size)
            masks[i] = _reduce(sample.mask.astype(np.uint8) * 255, rendering.size)
        with atomic_folder(folder) as temporary:
            np.savez(temporary / path.name, images=images, masks=masks, kinds=kinds)
    with np.load(path) as content:
        return Shard(content["images"], content["masks"], content["kinds"])


def _reduce(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
