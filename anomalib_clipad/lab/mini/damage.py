"""The defects of training pictures: those of the generated parts, and two more for variety."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from anomalib_clipad.parts.defects import DEFECTS, Defect, blob, tint
from anomalib_clipad.parts.noise import Rng, uniform
from anomalib_clipad.parts.scene import Scene, place

from .materials import any_material

KINDS = tuple(DEFECTS)


class Damage(NamedTuple):
    """A defect and the kind of defect that captions call it, as an index into ``KINDS``."""

    defect: Defect
    kind: int


def foreign_matter(rng: Rng, scene: Scene, strength: float) -> Scene:
    """A patch of another material."""
    unit = scene.size / 240
    distance = blob(rng, scene, uniform(rng, 4, 30) * unit, 0.6)
    inside = np.clip(0.5 - distance / np.float32(uniform(rng, 1, 4) * unit), 0, 1)
    frame = place(rng, scene.size, (0.3, 1.5), np.pi, 0.6)
    other = any_material(np.random.default_rng(int(rng.integers(2**32))), rng, frame)
    share = inside * np.float32(0.4 + 0.6 * strength)
    return tint(scene, share, other.albedo, height=scene.height + share * (other.height - scene.height))


def dent(rng: Rng, scene: Scene, strength: float) -> Scene:
    """A dent or a bump that only the light shows."""
    unit = scene.size / 240
    radius = uniform(rng, 4, 18) * unit
    distance = blob(rng, scene, radius, 0.25)
    dome = np.exp(-np.square(np.clip(distance / np.float32(radius) + 1, 0, None)))
    depth = uniform(rng, 2, 7) * strength * unit * (1 if rng.random() < 0.5 else -1)
    return scene.with_(height=scene.height + (np.float32(depth) * dome).astype(np.float32))


DAMAGES: tuple[Damage, ...] = (
    *(Damage(defect, kind) for kind, defect in enumerate(DEFECTS.values())),
    Damage(foreign_matter, KINDS.index("contamination")),
    Damage(dent, KINDS.index("bend")),
)
