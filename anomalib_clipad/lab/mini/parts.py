"""Parts of no name, for training only: outlines, openings and repetitions at random, in any material."""

from __future__ import annotations

import numpy as np

from anomalib_clipad.parts.categories import Builder, part, surface
from anomalib_clipad.parts.noise import Field, Rng, uniform
from anomalib_clipad.parts.scene import Frame
from anomalib_clipad.parts.shapes import cut, join

from .materials import PLAIN, any_material
from .outlines import random_cutouts, random_outline, regular_outline


def single(style: Rng, frame: Frame) -> Field:
    """Any outline with any openings."""
    return cut(random_outline(style, frame), *random_cutouts(style, frame))


def repeated(style: Rng, frame: Frame) -> Field:
    """An outline with a feature repeated round it, along it or all over it, added or cut out."""
    base = random_outline(style, frame)
    arrangement = style.integers(3)
    if arrangement == 0:
        count, reach = int(style.integers(3, 25)), uniform(style, 0.3, 0.95)
        places, room = _around(frame, count, reach), reach * np.pi / count
    else:
        count = int(style.integers(3, 12))
        pitch = uniform(style, 1.0, 1.9) / count
        lines = 1 if arrangement == 1 else int(style.integers(2, 6))
        places, room = _along(frame, (count, lines), (pitch, pitch * uniform(style, 1, 2))), pitch / 2
        if arrangement == 1:
            places = places._replace(v=places.v - np.float32(uniform(style, -0.8, 0.8)))
    scale = np.float32(room * uniform(style, 0.35, 0.8))
    aspect = np.float32(uniform(style, 1, 5) if style.random() < 0.5 else 1)
    feature = random_outline(style, Frame(places.u / scale, places.v / (scale * aspect), frame.pitch)) * scale
    return join(base, feature) if style.random() < 0.5 else cut(base, feature)


def several(style: Rng, frame: Frame) -> Field:
    """Equal parts side by side."""
    columns, lines = (int(n) for n in style.integers(1, 4, size=2))
    pitch = 2.1 / max(columns, lines)
    places = _along(frame, (columns, lines), (pitch, pitch))
    scale = np.float32(pitch * uniform(style, 0.3, 0.45))
    return single(style, Frame(places.u / scale, places.v / scale, frame.pitch / float(scale))) * scale


def _around(frame: Frame, count: int, reach: float) -> Frame:
    """Coordinates that begin anew at equal angles, with their origin at a distance from the middle."""
    step = 2 * np.pi / count
    angle = np.mod(np.arctan2(frame.v, frame.u), step) - step / 2
    radius = np.hypot(frame.u, frame.v)
    along, across = radius * np.sin(angle), radius * np.cos(angle) - reach
    return Frame(along.astype(np.float32), across.astype(np.float32), frame.pitch)


def _along(frame: Frame, counts: tuple[int, int], pitch: tuple[float, float]) -> Frame:
    """Coordinates that begin anew at the places of a centred grid of columns and lines."""
    axes = []
    for axis, count, distance in zip((frame.u, frame.v), counts, pitch, strict=True):
        index = np.clip(np.round(axis / distance + (count - 1) / 2), 0, count - 1) - (count - 1) / 2
        axes.append((axis - index * distance).astype(np.float32))
    return Frame(axes[0], axes[1], frame.pitch)


BUILDERS: tuple[Builder, ...] = (
    part(single, (any_material,), marks=3, background=any_material),
    part(single, PLAIN, marks=3, background=any_material),
    part(repeated, (any_material,), marks=2, background=any_material),
    part(repeated, PLAIN, marks=1, background=any_material),
    part(regular_outline, (any_material, *PLAIN), marks=2, background=any_material),
    part(several, (any_material, *PLAIN), marks=1, background=any_material),
    surface(any_material, (0.5, 1.6), marks=2),
    surface(any_material, (0.5, 1.6)),
    surface(any_material, (0.5, 1.6)),
)
"""What training pictures show."""
