"""Outlines of parts as signed distances: negative inside, in part coordinates."""

from __future__ import annotations

import numpy as np

from .noise import Field
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
