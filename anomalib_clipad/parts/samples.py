"""One picture: a part of a category, flawless or with a defect, from nothing but a seed."""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from .categories import CATEGORIES, Builder
from .defects import DEFECTS, Defect
from .noise import Rng, uniform
from .render import Image, changed, develop, expose, random_camera

_ATTEMPTS = 12


class Sample(NamedTuple):
    """A part photographed twice.

    Attributes:
        image: The part, with its defect if there is one (size, size, 3).
        mask: Pixels that the defect changed (size, size); none if there is none.
        flawless: The same part and picture without the defect (size, size, 3).
    """

    image: Image
    mask: NDArray[np.bool_]
    flawless: Image


def named_sample(category: str, split: str, index: int, defect: str | None, seed: int, size: int) -> Sample:
    """A picture of a named category; the same arguments always give the same picture.

    Args:
        category: A name in ``CATEGORIES``.
        split: Separates the pictures of one use from another's.
        index: Number of the picture within its split and defect.
        defect: A name in ``DEFECTS``, or ``None``.
        seed: Seed of the data set.
        size: Height and width in pixels.
    """
    style_seed = crc32(category.encode())
    key = crc32(f"{split}/{defect or 'good'}".encode())
    rng = np.random.default_rng([seed, style_seed, key, index])
    return make_sample(CATEGORIES[category], style_seed, rng, DEFECTS[defect] if defect else None, size)


def make_sample(builder: Builder, style_seed: int, rng: Rng, defect: Defect | None, size: int) -> Sample:
    """Build, damage and photograph a part.

    Args:
        builder: What kind of part.
        style_seed: Decides everything the parts of one product line have in common.
        rng: Decides the rest.
        defect: What damages it, if anything does.
        size: Height and width in pixels.
    """
    style = np.random.default_rng(style_seed)
    scene = builder(style, rng, size)
    camera = random_camera(style, rng)
    flawless = expose(scene, camera)
    damaged, mask = flawless, np.zeros((size, size), bool)
    smallest = 25 * (size / 240) ** 2
    if defect is not None:
        for attempt in range(_ATTEMPTS):
            strength = max(uniform(rng, 0.25, 1), attempt / _ATTEMPTS)
            damaged = expose(defect(rng, scene, strength), camera)
            mask = changed(flawless, damaged)
            if mask.sum() >= smallest:
                break
    noise_seed = int(rng.integers(2**32))
    image = develop(damaged, camera, np.random.default_rng(noise_seed))
    return Sample(image, mask, develop(flawless, camera, np.random.default_rng(noise_seed)))
