"""The categories: those for training and those held out for testing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .marks import add_marks, cloudiness, dust
from .noise import Field, Rng, uniform
from .scene import Frame, Scene, cover_of, place
from .shapes import (
    around,
    box,
    cut,
    disc,
    join,
    polygon,
    rows,
    toothed,
)
from .textures import (
    Material,
    brushed,
    fibrous,
    granular,
    lattice,
    mottled,
    plain,
    random_material,
    ribbed,
    speckled,
    tiled,
    wood_grain,
    woven,
    wrinkled,
)

Outline = Callable[[Rng, Frame], Field]
Builder = Callable[[Rng, Rng, int], Scene]


def _background(style: Rng, rng: Rng, size: int, material: Material) -> Field:
    frame = place(rng, size, (0.9, 1.1), np.pi, 0.5)
    if style.random() < 0.7:
        return plain(style, rng, frame).albedo
    return material(style, rng, frame).albedo


def part(
    outline: Outline,
    materials: Sequence[Material],
    turn: float = np.pi,
    marks: int = 2,
    background: Material = random_material,
) -> Builder:
    """Parts with an outline, a bevelled edge and up to ``marks`` marks, on a background.

    Args:
        outline: Outline of the parts.
        materials: What they may be made of; one product line is of one of them.
        turn: Largest rotation in radians, either way.
        marks: Largest number of marks.
        background: What they lie on, if not on a plain ground.
    """

    def build(style: Rng, rng: Rng, size: int) -> Scene:
        frame = place(rng, size, (0.62, 0.8), turn, 0.1)
        distance = outline(style, frame)
        made = materials[int(style.integers(len(materials)))](style, rng, frame)
        bevel, rise = uniform(style, 0.02, 0.25), uniform(style, 2, 12) * size / 240
        slope = np.clip(-distance / np.float32(bevel), 0, 1)
        height = made.height + np.float32(rise) * (slope * (2 - slope))
        ground = _background(style, rng, size, background)
        gloss = uniform(style, 0, 1) ** 2
        cover = cover_of(distance, frame)
        scene = Scene(made.albedo, height.astype(np.float32), cover, gloss, ground)
        return add_marks(style, rng, frame, scene, marks)

    return build


def surface(material: Material, zoom: tuple[float, float] = (0.85, 1.2), marks: int = 0) -> Builder:
    """Surfaces of a material that fill the picture.

    Args:
        material: What they are made of.
        zoom: Range of the scale.
        marks: Largest number of marks.
    """

    def build(style: Rng, rng: Rng, size: int) -> Scene:
        frame = place(rng, size, zoom, np.pi if style.random() < 0.5 else 0.2, 0.6)
        made = material(style, rng, frame)
        solid = np.ones((size, size), np.float32)
        gloss = 0.5 * uniform(style, 0, 1) ** 2
        scene = Scene(made.albedo, made.height, solid, gloss, np.zeros((size, size, 3), np.float32))
        if marks:
            return add_marks(style, rng, frame, scene, marks)
        return dust(style, rng, cloudiness(style, rng, scene))

    return build


def _washer(style: Rng, frame: Frame) -> Field:
    return cut(disc(frame, 1), disc(frame, uniform(style, 0.35, 0.65)))


def _nut(style: Rng, frame: Frame) -> Field:
    return cut(polygon(frame, 6, 0.86, 0.3), disc(frame, uniform(style, 0.4, 0.55)))


def _bolt(_style: Rng, frame: Frame) -> Field:
    thread = np.float32(0.03) * np.cos(frame.u * np.float32(45))
    shaft = box(frame, (0.75, 0.17), 0.0, 0.2) + thread * (frame.u > -0.2)
    return join(shaft, box(frame, (0.16, 0.42), 0.05, -0.75))


def _plate(style: Rng, frame: Frame) -> Field:
    holes = rows(frame, 2, 2, (1.4, 1.0), 0.09)
    return cut(box(frame, (0.95, uniform(style, 0.65, 0.8)), 0.1), *holes)


def _flange(style: Rng, frame: Frame) -> Field:
    return cut(disc(frame, 1), disc(frame, 0.38), *around(frame, int(style.integers(4, 9)), 0.7, 0.1))


def _pill(_style: Rng, frame: Frame) -> Field:
    return box(frame, (0.95, 0.45), 0.45)


def _gear(style: Rng, frame: Frame) -> Field:
    teeth = int(style.integers(14, 22))
    windows = around(frame, 5, 0.5, 0.13)
    return cut(toothed(frame, 0.88, teeth, 0.17, 2.5), disc(frame, 0.22), *windows)


def _bracket(_style: Rng, frame: Frame) -> Field:
    upright = box(frame, (0.26, 0.95), 0.08, -0.6)
    foot = box(frame, (0.85, 0.26), 0.08, 0.0, 0.69)
    holes = [disc(frame, 0.1, -0.6, -0.65), disc(frame, 0.1, -0.6, -0.1), disc(frame, 0.1, 0.55, 0.69)]
    return cut(join(upright, foot), *holes)


def _connector(_style: Rng, frame: Frame) -> Field:
    housing = box(frame, (0.98, 0.4), 0.06, 0.0, -0.15)
    pins = [box(frame, (0.05, 0.28), 0.0, float(x), 0.45) for x in np.linspace(-0.78, 0.78, 7)]
    sockets = [box(frame, (0.055, 0.09), 0.0, float(x), -0.15) for x in np.linspace(-0.78, 0.78, 7)]
    return cut(join(housing, *pins), *sockets)


TRAINING_CATEGORIES: dict[str, Builder] = {
    "washer": part(_washer, (brushed, plain)),
    "nut": part(_nut, (brushed, mottled)),
    "bolt": part(_bolt, (brushed, plain), marks=0),
    "plate": part(_plate, (brushed, mottled, plain)),
    "flange": part(_flange, (mottled, brushed)),
    "pill": part(_pill, (plain, speckled)),
    "leather": surface(wrinkled),
    "mesh": surface(lattice),
    "carpet": surface(fibrous),
    "brushed_metal": surface(brushed),
    "corduroy": surface(ribbed),
    "wall_tile": surface(tiled),
    "terrazzo": surface(speckled),
}
"""Parts for training SDP+ and for choosing between recipes of clipad-mini."""

HELD_OUT_CATEGORIES: dict[str, Builder] = {
    "gear": part(_gear, (plain, mottled), marks=1),
    "bracket": part(_bracket, (plain, mottled), marks=1),
    "connector": part(_connector, (plain,), turn=0.25, marks=1),
    "weave": surface(woven),
    "wood": surface(wood_grain),
    "granite": surface(granular, (1.0, 1.4)),
}
"""Parts kept for measuring: their outlines and materials, and their names, take no part in any training."""

CATEGORIES: dict[str, Builder] = {**HELD_OUT_CATEGORIES, **TRAINING_CATEGORIES}
