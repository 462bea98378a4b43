"""Outlines and openings at random, of parts that have no name."""

from __future__ import annotations

import numpy as np

from anomalib_clipad.parts.noise import Field, Rng, uniform
from anomalib_clipad.parts.scene import Frame
from anomalib_clipad.parts.shapes import around, box, cut, disc, join, polygon, rows


def wavy(frame: Frame, radius: float, waves: list[tuple[int, float, float]]) -> Field:
    """A disc whose radius is a short Fourier series of the angle: (order, amplitude, phase)."""
    angle = np.arctan2(frame.v, frame.u)
    edge = np.full_like(frame.u, radius)
    for order, amplitude, phase in waves:
        edge += np.float32(amplitude) * np.cos(order * angle + np.float32(phase))
    return (np.hypot(frame.u, frame.v) - edge) * np.float32(0.9)


def random_outline(rng: Rng, frame: Frame) -> Field:
    """Any simple outline: disc, box, polygon, bar or a smooth closed curve, sometimes two of them joined."""
    first = _random_primitive(rng, frame)
    if rng.random() < 0.3:
        angle, reach = uniform(rng, 0, 2 * np.pi), uniform(rng, 0.3, 0.7)
        x, y = reach * float(np.cos(angle)), reach * float(np.sin(angle))
        shifted = Frame((frame.u - np.float32(x)) * 2, (frame.v - np.float32(y)) * 2, frame.pitch)
        other = _random_primitive(rng, shifted) / 2
        return join(first, other) if rng.random() < 0.6 else cut(first, other)
    return first


def _random_primitive(rng: Rng, frame: Frame) -> Field:
    kind = rng.integers(6)
    if kind == 0:
        return disc(frame, uniform(rng, 0.7, 1))
    if kind == 1:
        return box(frame, (uniform(rng, 0.5, 1), uniform(rng, 0.5, 1)), uniform(rng, 0, 0.4))
    if kind == 2:
        return polygon(frame, int(rng.integers(3, 9)), uniform(rng, 0.6, 0.85), uniform(rng, 0, 0.5))
    if kind == 3:
        return box(frame, (uniform(rng, 0.8, 1.1), uniform(rng, 0.15, 0.4)), uniform(rng, 0, 0.15))
    orders = rng.integers(2, 7, size=int(rng.integers(1, 4)))
    waves = [(int(order), uniform(rng, 0, 0.3) / int(order), uniform(rng, 0, 6.3)) for order in orders]
    return wavy(frame, uniform(rng, 0.6, 0.9), waves)


def regular_outline(rng: Rng, frame: Frame) -> Field:
    """An outline of many equal features: a scalloped disc, a bar with knobs, a grille or a perforated sheet."""
    kind = rng.integers(4)
    if kind == 0:
        order = int(rng.integers(8, 25))
        rim = wavy(frame, uniform(rng, 0.75, 0.9), [(order, uniform(rng, 0.03, 0.1), 0.0)])
        return cut(rim, *around(frame, int(rng.integers(3, 9)), uniform(rng, 0.4, 0.6), uniform(rng, 0.06, 0.14)))
    count = int(rng.integers(4, 10))
    pitch = 1.8 / count
    if kind == 1:
        knobs = rows(frame, count, int(rng.integers(1, 3)), (pitch, uniform(rng, 0.5, 0.9)), pitch * 0.35)
        return join(box(frame, (0.98, uniform(rng, 0.2, 0.4)), 0.05), *knobs)
    sheet = box(frame, (0.98, uniform(rng, 0.6, 0.95)), 0.1)
    if kind == 2:
        half = (pitch * uniform(rng, 0.12, 0.32), uniform(rng, 0.1, 0.5))
        return cut(sheet, *(box(frame, half, 0.02, (i - (count - 1) / 2) * pitch) for i in range(count)))
    return cut(sheet, *rows(frame, count, int(rng.integers(2, 6)), (pitch, pitch), pitch * uniform(rng, 0.15, 0.32)))


def random_cutouts(rng: Rng, frame: Frame) -> list[Field]:
    """Openings that belong to the part: a bore, bolt holes around it, a row, a slot, or none."""
    kind = rng.integers(6)
    if kind == 0:
        return [disc(frame, uniform(rng, 0.1, 0.55))]
    if kind == 1:
        count = int(rng.integers(2, 9))
        return around(frame, count, uniform(rng, 0.35, 0.65), uniform(rng, 0.05, 0.14), uniform(rng, 0, 6.3))
    if kind == 2:
        columns, lines = (int(n) for n in rng.integers(1, 5, size=2))
        spacing = (uniform(rng, 0.25, 0.45), uniform(rng, 0.25, 0.45))
        return rows(frame, columns, lines, spacing, uniform(rng, 0.04, 0.11))
    if kind == 3:
        return [box(frame, (uniform(rng, 0.2, 0.5), uniform(rng, 0.05, 0.15)), 0.05)]
    return []
