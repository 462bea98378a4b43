"""Random fields: the raw material of surfaces, stains and ragged edges."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]
"""A floating-point picture (H, W)."""
Colour = NDArray[np.float32]
"""Red, green, blue in [0, 1]."""
Rng = np.random.Generator


def smooth_noise(rng: Rng, size: int, cells: float) -> Field:
    """Noise (size, size) in about [-1, 1] with ``cells`` independent values along an axis."""
    count = max(int(np.ceil(cells)), 1)
    grid = rng.random((count + 4, count + 4), dtype=np.float32) * 2 - 1
    pitch = cells / size
    offset = 1.5 + rng.random()
    matrix = np.array([[pitch, 0, offset], [0, pitch, offset]], dtype=np.float32)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(grid, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT))


def fractal_noise(rng: Rng, size: int, cells: float, octaves: int = 4, gain: float = 0.5) -> Field:
    """Noise (size, size) in about [-1, 1] with detail at ``octaves`` scales, each twice as fine."""
    total = np.zeros((size, size), np.float32)
    amplitude, norm = 1.0, 0.0
    for octave in range(octaves):
        total += amplitude * smooth_noise(rng, size, min(cells * 2**octave, size / 2))
        norm += amplitude
        amplitude *= gain
    return total / np.float32(norm)


def sample(field: Field, u: Field, v: Field) -> Field:
    """Read a picture at part coordinates: [-1, 1] spans it once, and it repeats beyond."""
    height, width = field.shape[:2]
    x = np.mod((u + 1) / 2, 2) * (width - 1)
    y = np.mod((v + 1) / 2, 2) * (height - 1)
    x = np.where(x > width - 1, 2 * (width - 1) - x, x).astype(np.float32)
    y = np.where(y > height - 1, 2 * (height - 1) - y, y).astype(np.float32)
    return np.asarray(cv2.remap(field, x, y, cv2.INTER_LINEAR))


def colour(rng: Rng, saturation: float = 1.0, low: float = 0.1, high: float = 0.9) -> Colour:
    """A random colour whose brightness lies in [low, high]; many are nearly grey, as materials are."""
    hue, chroma = rng.random(), saturation * rng.random() ** 1.7
    value = low + (high - low) * rng.random()
    phases = np.array([0.0, 1 / 3, 2 / 3])
    rgb = value * (1 - chroma * (0.5 - 0.5 * np.cos(2 * np.pi * (hue - phases))))
    return rgb.astype(np.float32)


def near(rng: Rng, base: Colour, distance: float) -> Colour:
    """A colour about ``distance`` away from ``base`` in every channel, mostly in brightness."""
    shift = rng.choice([-1.0, 1.0]) * distance * (0.6 + 0.8 * rng.random())
    return np.clip(base + shift + distance * 0.5 * (rng.random(3) - 0.5), 0.02, 0.98).astype(np.float32)


def uniform(rng: Rng, low: float, high: float) -> float:
    """A number in [low, high)."""
    return float(low + (high - low) * rng.random())
