"""The training schedule of clipad-mini: images, their order, learning rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .pool import COARSE, FINE, Rendering


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
class Round:
    """Phases at one scale, with a learning rate that falls to nothing.

    Attributes:
        rendering: Pictures to train on.
        shards: Number of shards of 500 pairs.
        side: Height and width of a whole picture in pixels.
        phases: Crops, small ones first; the last are whole pictures.
        lr: Learning rate after the warm-up; it falls linearly.
        plainest: Share of the pairs used, those with the plainest defects first, at the start and at the end.
        warmup: Steps over which the learning rate rises.
        first_shard: Number of the first shard.
    """

    rendering: Rendering
    shards: int
    side: int
    phases: tuple[Phase, ...]
    lr: float
    plainest: tuple[float, float]
    warmup: int = 50
    first_shard: int = 0

    @property
    def steps(self) -> int:
        """Number of all steps."""
        return sum(phase.steps for phase in self.phases)

    def phase(self, step: int) -> Phase:
        """The phase a step belongs to."""
        ends = np.cumsum([phase.steps for phase in self.phases])
        return self.phases[int(np.searchsorted(ends, step, side="right"))]

    def learning_rate(self, step: int) -> float:
        """Rises over the warm-up, falls from the first step on."""
        return self.lr * min((step + 1) / self.warmup, 1) * (self.steps - step) / self.steps

    def plainest_share(self, step: int) -> float:
        """Share of the pairs in use."""
        first, last = self.plainest
        return first + (last - first) * step / self.steps


@dataclass(frozen=True)
class Recipe:
    """All there is to choose.

    Attributes:
        seed: Seed of pictures, captions, weights and their order.
        rounds: Trained one after the other, each from the averaged weights of the one before.
        averaged: Number of last rounds whose results are averaged into the final weights.
        prompts: Captions of each state per step.
        text_steps: Steps on text alone, before the others.
        ema: Decay of the averaged weights, which are the result.
        validate_every: Steps between validations.
    """

    seed: int = 0
    rounds: tuple[Round, ...] = (
        Round(COARSE, 19, 160, (Phase(96, 32, 3000), Phase(160, 24, 1700)), 6e-4, (0.5, 0.9)),
        Round(FINE, 12, 304, (Phase(96, 32, 3600), Phase(160, 24, 700), Phase(304, 8, 150)), 5e-4, (0.8, 0.9)),
        Round(FINE, 12, 304, (Phase(160, 24, 200), Phase(304, 8, 700)), 4e-4, (0.8, 0.9)),
        Round(FINE, 4, 304, (Phase(304, 8, 250),), 3e-4, (0.8, 0.9), first_shard=12),
    )
    averaged: int = 3
    prompts: int = 24
    text_steps: int = 800
    ema: float = 0.997
    validate_every: int = 600
