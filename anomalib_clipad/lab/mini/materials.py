"""Materials for training only: what makes surfaces look natural, and photographs as surfaces."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.parts.noise import (
    Colour,
    Field,
    Rng,
    colour,
    fractal_noise,
    sample,
    smooth_noise,
    uniform,
)
from anomalib_clipad.parts.scene import Frame, cover_of
from anomalib_clipad.parts.textures import (
    Material,
    Surface,
    brushed,
    fibrous,
    lattice,
    mottled,
    plain,
    ribbed,
    wrinkled,
)

from .outlines import random_outline

_TILE = 256
PHOTOGRAPHS = ("brick", "grass", "gravel", "camera", "chelsea", "coffee", "moon", "hubble_deep_field")
"""Pictures that scikit-image carries, with the licences that docs/clipad-mini.md lists."""


def clouded(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Noise of many scales, stretched, bent and coloured along a gradient: stone, rust, plaster, marble, hide."""
    cells, octaves, gain = uniform(style, 1, 5) ** 2, int(style.integers(2, 7)), uniform(style, 0.4, 0.95)
    field = fractal_noise(rng, _TILE, cells, octaves, gain)
    stretch = np.float32(np.exp(uniform(style, -1.2, 1.2) * (style.random() < 0.5)))
    bent = np.float32(uniform(style, 0, 0.5)) * sample(smooth_noise(rng, _TILE, 4), frame.u, frame.v)
    field = sample(field, frame.u * stretch + bent, frame.v / stretch - bent)
    field = field / max(float(field.std()), 1e-3)
    shape = style.integers(4)
    if shape == 0:
        field = 1.5 * np.abs(field) - 1
    elif shape == 1:
        field = np.tanh(np.float32(uniform(style, 1, 6)) * (field - np.float32(uniform(style, -1, 1))))
    return _coloured(style, field, uniform(style, 0.03, 0.3), uniform(style, -1, 1) * 1.5)


def banded(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Stripes of random widths and tones, straight or wavering: fabrics, board, rolled sheet."""
    tones = np.repeat(rng.standard_normal(64, dtype=np.float32), rng.integers(1, 14, size=64))[:_TILE, None]
    stripes = cv2.GaussianBlur(np.repeat(tones, 2, axis=1), (0, 0), uniform(style, 0.3, 2))
    waver = np.float32(uniform(style, 0, 0.15)) * sample(smooth_noise(rng, _TILE, 5), frame.u, frame.v)
    field = sample(np.ascontiguousarray(stripes), frame.u, frame.v + waver)
    return _coloured(style, field, uniform(style, 0.03, 0.2), uniform(style, -1, 1))


def pebbled(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Round and long grains that cover each other: gravel, seeds, granulate, foam."""
    tile = np.zeros((_TILE, _TILE), np.float32)
    largest, aspect, spread = uniform(style, 3, 12), uniform(style, 1, 3), uniform(style, 0, 90)
    turn = uniform(style, 0, 180)
    for _ in range(int(min(9 * _TILE**2 / largest**2, 2500) * uniform(style, 0.1, 0.6))):
        x, y = (int(n) for n in rng.integers(_TILE, size=2))
        radius = largest * uniform(rng, 0.4, 1)
        axes = (max(round(radius), 1), max(round(radius / aspect), 1))
        angle = turn + uniform(rng, -spread, spread)
        cv2.ellipse(tile, (x, y), axes, angle, 0, 360, float(rng.standard_normal()), -1, cv2.LINE_8)
    field = sample(cv2.GaussianBlur(tile, (0, 0), uniform(style, 0.4, 1.2)), frame.u, frame.v)
    return _coloured(style, field, uniform(style, 0.03, 0.2), uniform(style, 0, 1))


def stranded(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """Long threads, lying in about one direction or in all: hair, fleece, straw, ground metal."""
    tile = np.zeros((_TILE, _TILE), np.float32)
    length, spread, turn = uniform(style, 15, 200), uniform(style, 0, 1) ** 2 * np.pi, uniform(style, 0, np.pi)
    thick = int(style.integers(1, 4))
    for _ in range(int(style.integers(200, 900))):
        start = rng.random(2) * _TILE * 1.4 - 0.2 * _TILE
        angle = turn + uniform(rng, -spread, spread)
        end = start + length * uniform(rng, 0.3, 1) * np.array([np.cos(angle), np.sin(angle)])
        ends = [(int(x), int(y)) for x, y in (start, end)]
        cv2.line(tile, ends[0], ends[1], float(rng.standard_normal()), thick, cv2.LINE_8)
    field = sample(cv2.GaussianBlur(tile, (0, 0), uniform(style, 0.4, 1.0)), frame.u, frame.v)
    return _coloured(style, field, uniform(style, 0.02, 0.15), uniform(style, 0, 1))


def photographed(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """A piece of a photograph, as it is or in one colour, and softened."""
    picture = _photograph(PHOTOGRAPHS[style.integers(len(PHOTOGRAPHS))])
    side = int(uniform(style, 0.35, 1) * min(picture.shape[:2]))
    y, x = (int(rng.integers(extent - side + 1)) for extent in picture.shape[:2])
    piece = cv2.resize(picture[y : y + side, x : x + side], (_TILE, _TILE), interpolation=cv2.INTER_AREA)
    tone = sample(piece, frame.u, frame.v)
    grey = tone.mean(axis=2)
    if style.random() < 0.6:
        field = (grey - grey.mean()) / max(float(grey.std()), 1e-3)
        return _coloured(style, field, uniform(style, 0.04, 0.2), uniform(style, -1, 1))
    contrast = np.float32(uniform(style, 0.4, 1))
    albedo = tone.mean(axis=(0, 1)) + contrast * (tone - tone.mean(axis=(0, 1)))
    return Surface(np.clip(albedo, 0.02, 0.98).astype(np.float32), np.float32(uniform(style, -1.5, 1.5)) * grey)


def _coloured(style: Rng, field: Field, contrast: float, relief: float) -> Surface:
    """A field of about unit deviation as colours along a gradient of three, and as relief."""
    base = colour(style, 0.9)
    low, high = (np.clip(base + side * _tone(style, contrast), 0.02, 0.98) for side in (-1, 1))
    field = np.clip(field, -2.5, 2.5)[..., None]
    albedo = base + np.maximum(field, 0) * (high - base) + np.maximum(-field, 0) * (low - base)
    return Surface(np.clip(albedo, 0.02, 0.98).astype(np.float32), (relief * field[..., 0]).astype(np.float32))


def _tone(style: Rng, contrast: float) -> Colour:
    return (contrast * (1 + 0.5 * (style.random(3) - 0.5))).astype(np.float32)


@cache
def _photograph(name: str) -> NDArray[np.float32]:
    """A photograph (H, W, 3) in [0, 1]."""
    folder = Path(str(files("skimage"))) / "data"
    path = next(folder.glob(f"{name}.*"))
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert picture is not None, path
    return picture.astype(np.float32) / np.float32(255)


PLAIN: tuple[Material, ...] = (plain, mottled, brushed)
_STRUCTURED: tuple[Material, ...] = (
    wrinkled,
    ribbed,
    lattice,
    fibrous,
    clouded,
    clouded,
    clouded,
    banded,
    pebbled,
    stranded,
    photographed,
    photographed,
)


def _one(style: Rng, rng: Rng, frame: Frame) -> Surface:
    choice = PLAIN if style.random() < 0.25 else _STRUCTURED
    return choice[style.integers(len(choice))](style, rng, frame)


def any_material(style: Rng, rng: Rng, frame: Frame) -> Surface:
    """A material; or two: laid over each other, in patches, or one let into the other with a clean edge."""
    made = _one(style, rng, frame)
    combination = style.random()
    if combination > 0.45:
        return made
    other = _one(style, rng, frame)
    if combination < 0.15:
        return _mixed(made, other, np.full_like(frame.u, uniform(style, 0.2, 0.6)))
    if combination < 0.25:
        mask = sample(fractal_noise(rng, _TILE, uniform(style, 2, 25), 3), frame.u, frame.v)
        edge, level = uniform(style, 2, 40), uniform(style, -0.2, 0.3)
        return _mixed(made, other, np.clip(0.5 + (mask - np.float32(level)) * np.float32(edge), 0, 1))
    reach = uniform(style, 0.25, 0.8)
    x, y = uniform(style, -0.4, 0.4), uniform(style, -0.4, 0.4)
    inner = Frame((frame.u - np.float32(x)) / np.float32(reach), (frame.v - np.float32(y)) / np.float32(reach), 0)
    return _mixed(made, other, cover_of(random_outline(style, inner) * np.float32(reach), frame))


def _mixed(made: Surface, other: Surface, share: Field) -> Surface:
    albedo = made.albedo + share[..., None] * (other.albedo - made.albedo)
    return Surface(albedo, made.height + share * (other.height - made.height))
