"""Stages of training: how many epochs of it each takes, and how it learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Stage(NamedTuple):
    """A part of the training of an adaptor, as its authors have it.

    Attributes:
        epochs: How many it takes.
        batch_size: Pictures per batch.
        learning_rate: Of Adam.
        milestones: After which of its own steps the learning rate is halved.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    milestones: tuple[int, ...] = ()


def stage_at(stages: Sequence[Stage], epoch: int, epochs: int) -> int:
    """The number of the stage that an epoch belongs to.

    Args:
        stages: All of them; they share the epochs as their authors' do, and each has one at least.
        epoch: Counted from 0.
        epochs: How many there are in all.
    """
    every, over = sum(stage.epochs for stage in stages), 0
    for number, stage in enumerate(stages[:-1]):
        over += stage.epochs
        if epoch < max(round(epochs * over / every), number + 1):
            return number
    return len(stages) - 1
