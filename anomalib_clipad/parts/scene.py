"""A part before it is photographed: what it is made of, pixel by pixel, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .noise import Field, Rng, uniform


class Frame(NamedTuple):
    """Part coordinates of every pixel.

    Attributes:
        u: First coordinate (size, size); the part spans about [-1, 1].
        v: Second coordinate (size, size).
        pitch: Width of a pixel in part coordinates.
    """

    u: Field
    v: Field
    pitch: float

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.u.shape[0])


def place(rng: Rng, size: int, scale: tuple[float, float], turn: float, shift: float) -> Frame:
    """A frame at a random pose.

    Args:
        rng: Source of the pose.
        size: Height and width of the picture in pixels.
        scale: Range of the part's half width, as a share of the picture's half width.
        turn: Largest rotation in radians, either way.
        shift: Largest displacement, as a share of the picture's half width.
    """
    zoom, angle = uniform(rng, *scale), uniform(rng, -turn, turn)
    dx, dy = uniform(rng, -shift, shift), uniform(rng, -shift, shift)
    axis = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
    x, y = np.meshgrid(axis - np.float32(dx), axis - np.float32(dy))
    cos, sin = np.float32(np.cos(angle) / zoom), np.float32(np.sin(angle) / zoom)
    return Frame(cos * x + sin * y, -sin * x + cos * y, 2 / size / zoom)


@dataclass(frozen=True)
class Scene:
    """A part on its background, unlit.

    Attributes:
        albedo: Colour of the part (size, size, 3) in [0, 1].
        height: Height of the part's surface (size, size), in pixels.
        cover: How much of each pixel the part covers (size, size), in [0, 1].
        gloss: Strength of its reflections.
        background: Colour of what it lies on (size, size, 3).
    """

    albedo: Field
    height: Field
    cover: Field
    gloss: float
    background: Field

    @property
    def size(self) -> int:
        """Height and width in pixels."""
        return int(self.cover.shape[0])

    @property
    def is_texture(self) -> bool:
        """Whether the part fills the picture."""
        return bool(self.cover.min() > 0.99)

    def with_(self, **pictures: Field | None) -> Scene:
        """A copy with some of its pictures replaced; ``None`` leaves one as it is."""
        given: dict[str, Any] = {name: picture for name, picture in pictures.items() if picture is not None}
        return replace(self, **given)


def cover_of(distance: Field, frame: Frame) -> Field:
    """Anti-aliased cover of the pixels where a signed distance in part coordinates is negative."""
    return np.clip(0.5 - distance / frame.pitch, 0, 1).astype(np.float32)
