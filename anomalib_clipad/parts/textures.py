"""Materials: colour and relief of a surface as functions of part coordinates.

A material is drawn from two random streams. ``style`` decides what it is (its colours, its pitch) and is the same for
all pictures of a category; ``rng`` decides how this one piece came out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from .noise import (
    Colour,
    Field,
    Rng,
    colour,
    fractal_noise,
    near,
    sample,
    smooth_noise,
    uniform,
)
from .scene import Frame

_TILE = 256


class Surface(NamedTuple):
    """Colour (size, size, 3) in [0, 1] and relief (size, size) in pixels."""

    albedo: Field
    height: Field


Material = Callable[[Rng, Rng, Frame], Surface]


def _blend(share: Field, first: Colour, second: Colour) -> Field:
    """From the first colour where ``share`` is 0 to the second where it is 1."""
    return first + np.clip(share, 0, 1)[..., None] * (second - first)


def plain(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """One colour with a trace of unevenness: plastic, paint, polished metal."""
    base = colour(style, 0.9)
    uneven = uniform(style, 0.0, 0.05) * sample(fractal_noise(rng, _TILE, uniform(style, 2, 20)), frame.u, frame.v)
    return Surface(np.clip(base + uneven[..., None], 0, 1), np.zeros_like(frame.u))


def mottled(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Clouds of two colours: cast metal, stone ware, cork."""
    base = colour(style, 0.8)
    other = near(style, base, uniform(style, 0.04, 0.22))
    field = sample(fractal_noise(rng, _TILE, uniform(style, 3, 40), 4, uniform(style, 0.4, 0.8)), frame.u, frame.v)
    return Surface(_blend(0.5 + uniform(style, 0.6, 1.5) * field, base, other), uniform(style, 0, 1.5) * field)


def brushed(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Fine parallel streaks, straight or round the middle: brushed or turned metal."""
    base = colour(style, 0.25, 0.3, 0.8)
    streaks = rng.random((_TILE * 2, 12), dtype=np.float32) - np.float32(0.5)
    turned, fineness = style.random() < 0.4, uniform(style, 0.5, 1.5)
    if turned:
        across: Field = np.hypot(frame.u, frame.v)
        along: Field = np.arctan2(frame.v, frame.u) / np.float32(np.pi)
    else:
        across, along = frame.v, frame.u
    field = sample(streaks, along, across * np.float32(fineness))
    contrast = uniform(style, 0.05, 0.22)
    return Surface(np.clip(base + contrast * field[..., None], 0, 1), uniform(style, 0, 1) * field)


def speckled(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Sharp grains of two or three colours: terrazzo, sandpaper, recycled plastic."""
    base = colour(style, 0.7)
    albedo = np.broadcast_to(base, (*frame.u.shape, 3)).astype(np.float32)
    for _ in range(int(style.integers(1, 4))):
        field = sample(smooth_noise(rng, _TILE, uniform(style, 20, 100)), frame.u, frame.v)
        threshold = uniform(style, 0.2, 0.6)
        share = np.clip((field - threshold) * 6, 0, 1)[..., None]
        albedo = albedo + share * (near(style, base, uniform(style, 0.06, 0.3)) - albedo)
    return Surface(albedo, np.zeros_like(frame.u))


def wrinkled(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """A net of folds: leather, artificial skin."""
    base = colour(style, 0.8, 0.12, 0.7)
    cells = uniform(style, 12, 45)
    folds = np.abs(smooth_noise(rng, _TILE, cells)) + 0.6 * np.abs(smooth_noise(rng, _TILE, cells * 1.7))
    folds = sample(np.minimum(folds / 0.5, 1), frame.u, frame.v)
    return Surface(_blend(folds, base * np.float32(uniform(style, 0.6, 0.95)), base), uniform(style, 0.6, 2) * folds)


def ribbed(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Parallel ribs: corduroy, corrugated board, tread."""
    base = colour(style, 0.9)
    count = uniform(style, 8, 40)
    drift = 0.3 * sample(smooth_noise(rng, _TILE, 3), frame.u, frame.v) * uniform(style, 0, 1)
    wave = np.cos(np.float32(np.pi * count) * frame.v + drift)
    share = 0.5 + 0.5 * np.tanh(wave * np.float32(uniform(style, 0.8, 4)))
    return Surface(_blend(share, base, near(style, base, uniform(style, 0.03, 0.2))), uniform(style, 0.3, 2) * share)


def lattice(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """A regular pattern in two directions: grid, perforated sheet, tread plate, carpet loops, printed dots."""
    base = colour(style, 0.9)
    count = uniform(style, 6, 30)
    skew = uniform(style, -0.5, 0.5)
    wobble = uniform(style, 0, 0.5) * sample(smooth_noise(rng, _TILE, 4), frame.u, frame.v)
    p = np.cos(np.float32(np.pi * count) * frame.u + wobble)
    q = np.cos(np.float32(np.pi * count * uniform(style, 0.6, 1)) * (frame.v + np.float32(skew) * frame.u) - wobble)
    kind = style.integers(3)
    pattern = p * q if kind == 0 else np.maximum(p, q) - 0.5 if kind == 1 else p + q - np.float32(uniform(style, 0, 1))
    share = 0.5 + 0.5 * np.tanh(pattern * np.float32(uniform(style, 1, 6)))
    relief = uniform(style, -2, 2) * share
    return Surface(_blend(share, base, near(style, base, uniform(style, 0.05, 0.35))), relief)


def tiled(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Rectangular fields between joints, each a little different: tiles, bricks, keys."""
    base = colour(style, 0.8, 0.2, 0.9)
    count = uniform(style, 1.5, 5)
    aspect, bond = uniform(style, 0.5, 2), style.random() < 0.5
    y = frame.v * np.float32(count)
    row = np.floor(y)
    x = frame.u * np.float32(count * aspect) + np.where(bond, np.float32(0.5) * np.mod(row, 2), 0)
    column = np.floor(x)
    edge = np.minimum(0.5 - np.abs(x - column - 0.5), 0.5 - np.abs(y - row - 0.5))
    share = np.clip((edge - np.float32(uniform(style, 0.02, 0.06))) * 30, 0, 1)
    index = (np.mod(row, 16) * 16 + np.mod(column, 16)).astype(np.int64)
    tone = uniform(style, 0, 0.08) * (rng.random(256, dtype=np.float32) - 0.5)[index]
    albedo = _blend(share, near(style, base, uniform(style, 0.15, 0.4)), base) + tone[..., None]
    return Surface(np.clip(albedo, 0, 1).astype(np.float32), uniform(style, 0.5, 2) * share)


def fibrous(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Short fibres lying across each other: felt, paper, chipboard, carpet."""
    base = colour(style, 0.9)
    stretch = uniform(style, 3, 9)
    fine = rng.random((_TILE, int(_TILE / stretch)), dtype=np.float32) - 0.5
    first = sample(fine, frame.u, frame.v)
    second = sample(fine.T.copy(), frame.u + 0.3, frame.v + 0.4)
    field = first + second * np.float32(uniform(style, 0, 1))
    return Surface(np.clip(base + uniform(style, 0.1, 0.35) * field[..., None], 0, 1), uniform(style, 0, 1) * field)


def woven(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Warp and weft that pass over and under each other."""
    warp = colour(style, 0.7, 0.3, 0.8)
    weft = near(style, warp, uniform(style, 0.08, 0.2))
    count = uniform(style, 9, 14)
    wobble = 0.15 * sample(smooth_noise(rng, _TILE, 6), frame.u, frame.v)
    x, y = frame.u * np.float32(count) + wobble, frame.v * np.float32(count) - wobble
    over = np.mod(np.floor(x) + np.floor(y), 2) < 1
    across_x, across_y = np.sin(np.pi * np.mod(x, 1)), np.sin(np.pi * np.mod(y, 1))
    round_warp = across_x * (0.5 + 0.5 * across_y)
    round_weft = across_y * (0.5 + 0.5 * across_x)
    tone = np.where(over, round_warp, round_weft).astype(np.float32)
    thread = np.where(over[..., None], warp, weft)
    return Surface((thread * (0.55 + 0.45 * tone[..., None])).astype(np.float32), 1.5 * tone)


def wood_grain(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Year rings cut lengthwise, with pores."""
    light = np.array([0.72, 0.53, 0.34], np.float32) * np.float32(uniform(style, 0.7, 1.2))
    dark = light * np.array([0.72, 0.66, 0.6], np.float32)
    bend = sample(fractal_noise(rng, _TILE, 2.5, 3), frame.u * np.float32(0.35), frame.v)
    rings = (frame.v * np.float32(uniform(style, 5, 8)) + np.float32(1.6) * bend) * 2
    phase = np.mod(rings, 1)
    share = phase**2 * np.clip((1 - phase) * 6, 0, 1)
    pores = sample(rng.random((_TILE * 2, 24), dtype=np.float32), frame.u, frame.v)
    albedo = _blend(share, light, dark) - 0.12 * np.clip(pores - 0.75, 0, 1)[..., None]
    return Surface(np.clip(albedo, 0, 1).astype(np.float32), 0.3 * pores)


def granular(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Crystals of several colours in close contact, each cut off by its neighbours."""
    palette = np.stack([colour(style, 0.25, low, low + 0.2) for low in (0.1, 0.35, 0.5, 0.65)])
    count = 30000
    points = rng.random((count, 2)) * 4 - 2
    _, index = cKDTree(points).query(np.stack([frame.u, frame.v], axis=-1), workers=1)
    tones = palette[rng.integers(len(palette), size=count)] + 0.06 * (rng.random((count, 1), dtype=np.float32) - 0.5)
    return Surface(np.clip(tones[index], 0, 1).astype(np.float32), np.zeros_like(frame.u))


TRAINING_MATERIALS: tuple[Material, ...] = (
    plain,
    mottled,
    brushed,
    speckled,
    wrinkled,
    ribbed,
    lattice,
    tiled,
    fibrous,
)


def random_material(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Any training material, sometimes one laid over another."""
    surface = TRAINING_MATERIALS[style.integers(len(TRAINING_MATERIALS))](style, rng, frame)
    if style.random() < 0.25:
        other = TRAINING_MATERIALS[style.integers(len(TRAINING_MATERIALS))](style, rng, frame)
        share = np.float32(uniform(style, 0.2, 0.5))
        return Surface(surface.albedo * (1 - share) + other.albedo * share, surface.height + share * other.height)
    return surface
