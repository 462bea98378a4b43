"""Pictures that tests make up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import save
from numpy.typing import NDArray

from anomalib_clipad.images.picture import Picture


def noise(seed: int, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """Any level at any place."""
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def picture(seed: int, height: int = 40, width: int = 40) -> Picture:
    """Noise, read."""
    return Picture(noise(seed, height, width))


def noises(count: int, first: int = 0) -> list[NDArray[np.uint8]]:
    """So many, each another."""
    return [noise(first + index) for index in range(count)]


def write(folder: Path, *pictures: NDArray[np.uint8]) -> Path:
    """A folder of these, in their order."""
    for index, pixels in enumerate(pictures):
        save(folder / f"{index}.png", pixels)
    return folder


def surfaces(
    folder: Path, count: int, seed: int = 0, spread: float = 12, lamp: float = 12, shape: tuple[int, int] = (64, 64)
) -> Path:
    """A folder of pictures of one material.

    Args:
        folder: The folder.
        count: How many.
        seed: Of this series.
        spread: Standard deviation of the levels in a picture.
        lamp: Of the mean levels of the pictures.
        shape: Height and width.
    """
    rng = np.random.default_rng(seed)
    levels = (rng.normal(rng.normal(128, lamp), spread, (*shape, 3)) for _ in range(count))
    return write(folder, *(level.clip(0, 255).astype(np.uint8) for level in levels))
