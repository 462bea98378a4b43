"""What looks unusual and is not: print, labels, screws, dust, worn spots within tolerance."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .noise import (
    Field,
    Rng,
    near,
    sample,
    smooth_noise,
    uniform,
)
from .scene import Frame, Scene, cover_of
from .shapes import around, box, disc

_TILE = 256
_GLYPHS = "ABCDEFHKLMNPRSTXYZ0123456789-/+"
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_PLAIN)


def _paint(scene: Scene, share: Field, tone: Field) -> Scene:
    share = share[..., None]
    return scene.with_(albedo=scene.albedo + share * (tone - scene.albedo))


def printed_text(style: Rng, rng: Rng, frame: Frame, scene: Scene) -> Scene:
    """A line or two of type; its last characters differ from piece to piece, as serial numbers do."""
    tile: NDArray[Any] = np.zeros((_TILE, _TILE), np.uint8)
    font, scale = _FONTS[style.integers(len(_FONTS))], uniform(style, 0.5, 1.1)
    x, y = int(uniform(style, 20, 110)), int(uniform(style, 70, 200))
    for line in range(int(style.integers(1, 3))):
        fixed = "".join(_GLYPHS[i] for i in style.integers(len(_GLYPHS), size=4))
        serial = "".join(_GLYPHS[i] for i in rng.integers(len(_GLYPHS), size=2))
        cv2.putText(tile, fixed + serial, (x, y + int(line * 32 * scale)), font, scale, 255, 2, cv2.LINE_AA)
    share = sample(tile.astype(np.float32) / 255, frame.u, frame.v) * (np.abs(frame.u) < 1) * (np.abs(frame.v) < 1)
    tone = near(style, scene.albedo[scene.size // 2, scene.size // 2], uniform(style, 0.12, 0.45))
    return _paint(scene, share * np.float32(uniform(style, 0.5, 1)), tone)


def printed_shape(style: Rng, _rng: Rng, frame: Frame, scene: Scene) -> Scene:
    """A printed ring, bar, frame or field with clean edges."""
    x, y = uniform(style, -0.4, 0.4), uniform(style, -0.4, 0.4)
    kind = style.integers(4)
    if kind == 0:
        distance = np.abs(disc(frame, uniform(style, 0.15, 0.7), x / 2, y / 2)) - np.float32(uniform(style, 0.01, 0.05))
    elif kind == 1:
        distance = box(frame, (uniform(style, 0.2, 0.8), uniform(style, 0.02, 0.06)), 0.0, x / 2, y)
    elif kind == 2:
        edge = box(frame, (uniform(style, 0.2, 0.7), uniform(style, 0.2, 0.7)), 0.05, x / 2, y / 2)
        distance = np.abs(edge) - np.float32(0.02)
    else:
        distance = box(frame, (uniform(style, 0.1, 0.35), uniform(style, 0.08, 0.3)), 0.03, x, y)
    tone = near(style, scene.albedo[scene.size // 2, scene.size // 2], uniform(style, 0.08, 0.4))
    return _paint(scene, cover_of(distance, frame) * np.float32(uniform(style, 0.6, 1)), tone)


def fasteners(style: Rng, _rng: Rng, frame: Frame, scene: Scene) -> Scene:
    """Rivet heads or dimples at equal angles."""
    count, reach, radius = int(style.integers(1, 9)), uniform(style, 0.2, 0.65), uniform(style, 0.05, 0.13)
    relief = uniform(style, -4, 4)
    tone = near(style, scene.albedo[scene.size // 2, scene.size // 2], uniform(style, 0.03, 0.25))
    for head in around(frame, count, reach, radius, uniform(style, 0, 6.3)):
        share = cover_of(head, frame)
        dome = np.sqrt(np.clip(-head / np.float32(radius), 0, 1))
        scene = _paint(scene, share, tone).with_(height=scene.height + np.float32(relief) * dome)
    return scene


def groove(style: Rng, _rng: Rng, frame: Frame, scene: Scene) -> Scene:
    """A turned or milled line with clean, regular sides."""
    if style.random() < 0.5:
        distance = np.abs(disc(frame, uniform(style, 0.2, 0.8)))
    else:
        distance = np.abs(frame.v - np.float32(uniform(style, -0.5, 0.5)))
    width = uniform(style, 0.015, 0.05)
    dip = np.clip(1 - distance / np.float32(width), 0, 1)
    height = scene.height - np.float32(uniform(style, 1, 4)) * dip
    return scene.with_(height=height, albedo=scene.albedo * (1 - np.float32(uniform(style, 0, 0.4)) * dip[..., None]))


def cloudiness(style: Rng, rng: Rng, scene: Scene) -> Scene:
    """Slow changes of tone over the surface that differ from piece to piece."""
    field = smooth_noise(rng, scene.size, uniform(style, 1, 3.5)) * np.float32(uniform(style, 0.02, 0.12))
    return scene.with_(albedo=np.clip(scene.albedo * (1 + field[..., None]), 0, 1))


def dust(style: Rng, rng: Rng, scene: Scene) -> Scene:
    """Specks of one or two pixels, within tolerance."""
    layer = np.zeros((scene.size, scene.size), np.float32)
    for _ in range(int(rng.integers(3, 30))):
        y, x = rng.integers(scene.size, size=2)
        layer[y, x] = uniform(rng, 0.2, 1)
    layer = cv2.GaussianBlur(layer, (3, 3), 0.6 * scene.size / 240) * np.float32(uniform(style, 0.1, 0.5))
    tone = np.float32(0.95 if style.random() < 0.6 else 0.05)
    return scene.with_(albedo=scene.albedo + layer[..., None] * (tone - scene.albedo))


MARKS = (printed_text, printed_shape, fasteners, groove)


def add_marks(style: Rng, rng: Rng, frame: Frame, scene: Scene, most: int = 3) -> Scene:
    """Up to ``most`` marks of this product line, then what differs from piece to piece."""
    for _ in range(int(style.integers(0, most + 1))):
        scene = MARKS[style.integers(len(MARKS))](style, rng, frame, scene)
    if style.random() < 0.7:
        scene = cloudiness(style, rng, scene)
    if style.random() < 0.4:
        scene = dust(style, rng, scene)
    return scene
