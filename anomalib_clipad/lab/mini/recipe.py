"""The training schedule of clipad-mini: pictures, their order, learning rates."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import NamedTuple

import numpy as np


class Phase(NamedTuple):
    """Steps on crops of one size.

    Attributes:
        size: Height and width of the crops in pixels.
        pairs: Pairs of pictures per step.
        steps: Number of steps.
    """

    size: int
    pairs: int
    steps: int


@dataclass(frozen=True)
class Recipe:
    """All there is to choose.

    Attributes:
        seed: Seed of pictures, captions, weights and their order.
        phases: Crops, small ones first; the last are whole pictures.
        lr: Learning rate after the warm-up; it falls along a cosine to nothing.
        warmup: Steps over which the learning rate rises.
        weight_decay: Weight decay of matrices.
        shards: Number of shards of 250 pairs at the start and at the end.
        plainest: Share of the pairs used, those with the plainest defects first, at the start and at the end.
        prompts: Captions of each state per class word.
        words: Class words that images are trained with.
        text_steps: Steps on text alone, before the others.
        ema: Decay of the averaged weights, which are the result.
        save_every: Steps between checkpoints.
        validate_every: Steps between validations.
    """

    seed: int = 0
    phases: tuple[Phase, ...] = (Phase(96, 192, 5240), Phase(160, 128, 8790), Phase(304, 64, 19810))
    lr: float = 8e-4
    warmup: int = 300
    weight_decay: float = 0.05
    shards: tuple[int, int] = (15, 720)
    plainest: tuple[float, float] = (0.6, 0.95)
    prompts: int = 24
    words: int = 1000
    text_steps: int = 800
    ema: float = 0.9995
    save_every: int = 500
    validate_every: int = 5000

    @property
    def steps(self) -> int:
        """Number of all steps on pictures."""
        return sum(phase.steps for phase in self.phases)

    @property
    def side(self) -> int:
        """Height and width of a whole picture in pixels."""
        return self.phases[-1].size

    def phase(self, step: int) -> Phase:
        """The phase a step belongs to."""
        ends = np.cumsum([phase.steps for phase in self.phases])
        return self.phases[int(np.searchsorted(ends, step, side="right"))]

    def progress(self, step: int) -> float:
        """Share of the training that lies behind a step, by the pixels it has seen: what takes the time."""
        pixels = np.cumsum([0.0, *(phase.steps * phase.pairs * phase.size**2 for phase in self.phases)])
        ends = np.cumsum([0, *(phase.steps for phase in self.phases)])
        return float(np.interp(step, ends, pixels / pixels[-1]))

    def learning_rate(self, step: int) -> float:
        """Rises over the warm-up, falls from then on."""
        return self.lr * min((step + 1) / self.warmup, (1 + cos(pi * self.progress(step))) / 2)

    def plainest_share(self, step: int) -> float:
        """Share of the pairs in use."""
        first, last = self.plainest
        return first + (last - first) * self.progress(step)

    def shards_in_use(self, step: int) -> int:
        """Number of shards in use: from the first ones at the start to all of them at four fifths of the training."""
        first, last = self.shards
        return min(first + int((last - first) * 1.25 * self.progress(step)), last)
