"""Defects: each takes a flawless scene and returns it damaged.

They change colour, relief or outline only where the damage is. The mask is not drawn here: it is what differs between
the pictures of both scenes (see ``render``), so it is exact whatever a defect does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .noise import (
    Field,
    Rng,
    colour,
    fractal_noise,
    smooth_noise,
    uniform,
)
from .scene import Scene


def _anchor(rng: Rng, scene: Scene, on_edge: bool = False) -> tuple[float, float]:
    """A pixel (x, y) on the part: inside it, or on its outline."""
    solid: NDArray[Any] = (scene.cover > 0.9).astype(np.uint8)
    margin = max(round(scene.size * 0.02), 1)
    inner: NDArray[Any]
    if scene.is_texture:
        inner = np.zeros_like(solid)
        border = round(scene.size * 0.06)
        inner[border:-border, border:-border] = 1
    else:
        inner = np.asarray(cv2.erode(solid, np.ones((2 * margin + 1,) * 2, np.uint8), borderValue=0))
    if on_edge and not scene.is_texture:
        ring = solid - cv2.erode(solid, np.ones((3, 3), np.uint8), borderValue=0)
        inner = ring if ring.any() else inner
    places = np.flatnonzero(inner if inner.any() else np.ones_like(inner))
    y, x = divmod(int(places[rng.integers(len(places))]), scene.size)
    return float(x), float(y)


def _distance_to(x: float, y: float, size: int) -> Field:
    axis = np.arange(size, dtype=np.float32)
    return np.hypot(axis[None] - np.float32(x), axis[:, None] - np.float32(y))


def blob(rng: Rng, scene: Scene, radius: float, ragged: float, on_edge: bool = False) -> Field:
    """Signed distance in pixels to an irregular closed shape on the part."""
    x, y = _anchor(rng, scene, on_edge)
    angle, stretch = uniform(rng, 0, np.pi), uniform(rng, 1, 1.9)
    axis = np.arange(scene.size, dtype=np.float32)
    dx, dy = axis[None] - np.float32(x), axis[:, None] - np.float32(y)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    distance = np.hypot((cos * dx + sin * dy) / np.float32(stretch), cos * dy - sin * dx)
    noise = fractal_noise(rng, scene.size, scene.size / max(radius, 2.0) * 0.8, 3)
    return distance - np.float32(radius) * (1 + np.float32(ragged) * noise)


def _path(rng: Rng, scene: Scene, length: float, wander: float, steps: int) -> Field:
    """Points (steps, 2) of a line that starts on the part and keeps its direction more or less."""
    heading = uniform(rng, 0, 2 * np.pi)
    turns = np.cumsum((rng.random(steps) - 0.5) * wander)
    move = length / steps * np.stack([np.cos(heading + turns), np.sin(heading + turns)], axis=1)
    points = np.cumsum(move, axis=0)
    return points - points[steps // 2] + np.array(_anchor(rng, scene))


def _stroke(size: int, points: Field, width: float) -> Field:
    """Cover in [0, 1] of a line of some width in pixels, drawn on a finer grid."""
    fine = 4
    canvas = np.zeros((size * fine, size * fine), np.uint8)
    dots = np.round((points + 0.5) * fine * 16).astype(np.int32)
    cv2.polylines(canvas, [dots], False, 255, max(round(width * fine), 1), cv2.LINE_AA, 4)
    return (cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA) / np.float32(255)).astype(np.float32)


def tint(scene: Scene, share: Field, tone: Field | float, height: Field | None = None) -> Scene:
    """The scene with its part coloured, as far as the part reaches."""
    albedo = scene.albedo + share[..., None] * (np.asarray(tone, np.float32) - scene.albedo)
    return scene.with_(albedo=albedo.astype(np.float32), height=height)


def scratch(rng: Rng, scene: Scene, strength: float) -> Scene:
    """One to three thin lines, nearly straight, lighter or darker than the surface."""
    unit = scene.size / 240
    tone = 0.95 if rng.random() < 0.6 else 0.05
    for _ in range(int(rng.integers(1, 4))):
        points = _path(rng, scene, uniform(rng, 25, 130) * unit, 0.12, 24)
        line = _stroke(scene.size, points, uniform(rng, 0.7, 2.6) * unit)
        share = line * np.float32(strength * uniform(rng, 0.35, 0.8))
        scene = tint(scene, share, tone, height=scene.height - line * np.float32(2 * strength))
    return scene


def crack(rng: Rng, scene: Scene, strength: float) -> Scene:
    """A dark jagged line with branches."""
    unit = scene.size / 240
    points = _path(rng, scene, uniform(rng, 35, 140) * unit, 1.5, 30)
    lines = _stroke(scene.size, points, uniform(rng, 0.9, 3) * unit)
    for _ in range(int(rng.integers(0, 4))):
        start = points[rng.integers(5, 25)]
        branch = _path(rng, scene, uniform(rng, 10, 50) * unit, 1.5, 12)
        lines = np.maximum(lines, _stroke(scene.size, branch - branch[0] + start, uniform(rng, 0.7, 1.6) * unit))
    share = lines * np.float32(0.3 + 0.6 * strength)
    return tint(scene, share, uniform(rng, 0.0, 0.1), height=scene.height - lines * np.float32(4 * strength))


def hole(rng: Rng, scene: Scene, strength: float) -> Scene:
    """A pit with a ragged rim, dark or letting the background through."""
    unit = scene.size / 240
    distance = blob(rng, scene, uniform(rng, 3.5, 14) * unit, 0.5)
    inside = np.clip(0.5 - distance, 0, 1)
    rim = np.exp(-np.square(distance / np.float32(2.2 * unit))) * np.float32(0.35 * strength)
    scene = tint(scene, rim, 0.85 if rng.random() < 0.5 else 0.1)
    if not scene.is_texture and rng.random() < 0.35:
        return scene.with_(cover=scene.cover * (1 - inside))
    depth = np.clip(-distance, 0, 6 * unit)
    share = inside * np.float32(0.45 + 0.5 * strength)
    return tint(scene, share, uniform(rng, 0.0, 0.12), height=scene.height - depth * np.float32(strength))


def contamination(rng: Rng, scene: Scene, strength: float) -> Scene:
    """A stain with a drying edge, a smear, grains or a fibre of foreign matter."""
    unit = scene.size / 240
    tone = colour(rng, 1.0, 0.03, 0.95)
    kind = rng.integers(4)
    if kind == 0:
        distance = blob(rng, scene, uniform(rng, 7, 28) * unit, 0.6)
        inside = np.clip(0.5 - distance / np.float32(uniform(rng, 1, 6) * unit), 0, 1)
        edge = np.exp(-np.square(distance / np.float32(2 * unit)))
        return tint(scene, np.maximum(inside * 0.6, edge * 0.7) * np.float32(strength), tone)
    if kind == 1:
        distance = blob(rng, scene, uniform(rng, 8, 30) * unit, 0.4)
        streaks = 0.5 + 0.5 * smooth_noise(rng, scene.size, uniform(rng, 15, 50))
        inside = np.clip(0.5 - distance / np.float32(8 * unit), 0, 1)
        return tint(scene, inside * streaks * np.float32(strength), tone)
    if kind == 2:
        x, y = _anchor(rng, scene)
        share = np.zeros_like(scene.cover)
        for _ in range(int(rng.integers(4, 22))):
            dx, dy = (rng.random(2) + rng.random(2) - 1) * 26 * unit
            distance = _distance_to(x + dx, y + dy, scene.size)
            share = np.maximum(share, np.clip(0.5 + uniform(rng, 1.0, 4) * unit - distance, 0, 1))
        return tint(scene, share * np.float32(0.4 + 0.6 * strength), tone, height=scene.height + 2 * share)
    line = _stroke(scene.size, _path(rng, scene, uniform(rng, 40, 120) * unit, 0.9, 40), uniform(rng, 1.2, 2.8) * unit)
    return tint(scene, line * np.float32(0.4 + 0.6 * strength), tone, height=scene.height + 2 * line)


def missing_piece(rng: Rng, scene: Scene, strength: float) -> Scene:
    """A bite out of the outline; of an endless surface, a torn-off patch that shows the ground beneath."""
    unit = scene.size / 240
    distance = blob(rng, scene, uniform(rng, 8, 26) * unit, 0.35, on_edge=True)
    inside = np.clip(0.5 - distance, 0, 1)
    if not scene.is_texture:
        return scene.with_(cover=scene.cover * (1 - inside))
    ground = np.clip(scene.albedo.mean(axis=(0, 1)) + (rng.random() - 0.5) * (0.4 + 0.5 * strength), 0.03, 0.95)
    grain = 0.05 * fractal_noise(rng, scene.size, 40, 3)[..., None]
    depth = np.clip(-distance, 0, 4 * unit)
    share = inside[..., None]
    albedo = scene.albedo + share * (ground.astype(np.float32) + grain - scene.albedo)
    return scene.with_(albedo=albedo, height=scene.height * (1 - inside) - depth)


def bend(rng: Rng, scene: Scene, strength: float) -> Scene:
    """A piece of the part pushed aside, with the crease that shows it."""
    unit = scene.size / 240
    x, y = _anchor(rng, scene, on_edge=True)
    radius = uniform(rng, 18, 38) * unit
    away = _distance_to(x, y, scene.size)
    weight = np.square(np.clip(1 - np.square(away / np.float32(radius)), 0, 1))
    angle = uniform(rng, 0, 2 * np.pi)
    push = radius * uniform(rng, 0.3, 0.55) * (0.6 + 0.4 * strength)
    axis = np.arange(scene.size, dtype=np.float32)
    map_x = np.broadcast_to(axis[None], away.shape) - weight * np.float32(push * np.cos(angle))
    map_y = np.broadcast_to(axis[:, None], away.shape) - weight * np.float32(push * np.sin(angle))

    def warp(field: Field) -> Field:
        return cv2.remap(field, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    crease = weight * np.float32(uniform(rng, 2, 7) * strength * unit)
    return scene.with_(albedo=warp(scene.albedo), height=warp(scene.height) + crease, cover=warp(scene.cover))


def discolouration(rng: Rng, scene: Scene, strength: float) -> Scene:
    """A region whose colour is off while its texture remains: heat tint, fading, wrong dye."""
    unit = scene.size / 240
    distance = blob(rng, scene, uniform(rng, 9, 36) * unit, 0.45)
    inside = np.clip(0.5 - distance / np.float32(uniform(rng, 2, 14) * unit), 0, 1)[..., None]
    gains = 1 + (rng.random(3, dtype=np.float32) - 0.5) * np.float32(2.0 * (0.25 + 0.6 * strength))
    albedo = scene.albedo * (1 - inside) + np.clip(scene.albedo * gains, 0, 1) * inside
    return scene.with_(albedo=albedo.astype(np.float32))


Defect = Callable[[Rng, Scene, float], Scene]

DEFECTS: dict[str, Defect] = {
    "scratch": scratch,
    "crack": crack,
    "hole": hole,
    "contamination": contamination,
    "missing_piece": missing_piece,
    "bend": bend,
    "colour": discolouration,
}
"""Kinds of defect, as the folders of a data set call them."""
