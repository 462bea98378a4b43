"""Outlines of parts as signed distances: negative inside, in part coordinates."""

from __future__ import annotations

import numpy as np

from .noise import Field, Rng, uniform
from .scene import Frame


def disc(frame: Frame, radius: float, x: float = 0.0, y: float = 0.0) -> Field:
    """A disc."""
    return np.hypot(frame.u - x, frame.v - y) - np.float32(radius)


def box(frame: Frame, half: tuple[float, float], corner: float = 0.0, x: float = 0.0, y: float = 0.0) -> Field:
    """A rectangle with rounded corners."""
    across = np.abs(frame.u - x) - np.float32(half[0] - corner)
    along = np.abs(frame.v - y) - np.float32(half[1] - corner)
    outside = np.hypot(np.maximum(across, 0), np.maximum(along, 0))
    return outside + np.minimum(np.maximum(across, along), 0) - np.float32(corner)


def polygon(frame: Frame, sides: int, radius: float, corner: float = 0.0) -> Field:
    """A regular polygon whose inscribed circle has the radius."""
    step = 2 * np.pi / sides
    angle = np.mod(np.arctan2(frame.v, frame.u) + step / 2, step) - step / 2
    flat = np.hypot(frame.u, frame.v) * np.cos(angle) - np.float32(radius)
    rim = np.hypot(frame.u, frame.v) - np.float32(radius * (1 + (0.5 - corner) / sides))
    return np.maximum(flat, rim).astype(np.float32)


def wavy(frame: Frame, radius: float, waves: list[tuple[int, float, float]]) -> Field:
    """A disc whose radius is a short Fourier series of the angle: (order, amplitude, phase)."""
    angle = np.arctan2(frame.v, frame.u)
    edge = np.full_like(frame.u, radius)
    for order, amplitude, phase in waves:
        edge += np.float32(amplitude) * np.cos(order * angle + np.float32(phase))
    return (np.hypot(frame.u, frame.v) - edge) * np.float32(0.9)


def toothed(frame: Frame, radius: float, teeth: int, depth: float, sharpness: float) -> Field:
    """A disc with teeth; a high sharpness makes their flanks steep."""
    angle = np.arctan2(frame.v, frame.u)
    wave = np.tanh(np.float32(sharpness) * np.cos(teeth * angle)) / np.tanh(sharpness)
    return (np.hypot(frame.u, frame.v) - np.float32(radius) - np.float32(depth / 2) * wave) * np.float32(0.7)


def cut(distance: Field, *holes: Field) -> Field:
    """What is left after taking away other shapes."""
    for hole in holes:
        distance = np.maximum(distance, -hole)
    return distance


def join(distance: Field, *others: Field) -> Field:
    """The union of shapes."""
    for other in others:
        distance = np.minimum(distance, other)
    return distance


def around(frame: Frame, count: int, distance: float, radius: float, phase: float = 0.0) -> list[Field]:
    """Discs at equal angles around the middle, such as bolt holes."""
    angles = phase + 2 * np.pi * np.arange(count) / count
    return [disc(frame, radius, distance * float(np.cos(a)), distance * float(np.sin(a))) for a in angles]


def rows(frame: Frame, columns: int, lines: int, pitch: tuple[float, float], radius: float) -> list[Field]:
    """Discs on a centred grid."""
    xs = (np.arange(columns) - (columns - 1) / 2) * pitch[0]
    ys = (np.arange(lines) - (lines - 1) / 2) * pitch[1]
    return [disc(frame, radius, float(x), float(y)) for y in ys for x in xs]


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
