"""The optimizer of an adaptor: Adam, with a rate for each stage, halved after some of the stage's own steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from anomalib_clipad.adaptors.base import Adaptor


def optimizer_of(adapter: Adaptor, learning_rate: float) -> Any:
    """Adam on the layers, as Lightning takes it.

    Args:
        adapter: The layers.
        learning_rate: That of the last stage; those of the others are in the proportion of their authors'.
    """
    stages = adapter.course
    rates = (learning_rate * stage.learning_rate / stages[-1].learning_rate for stage in stages)
    groups = [{"params": own, "lr": rate} for own, rate in zip(adapter.groups(), rates, strict=True)]
    optimizer = Adam(groups, betas=adapter.betas)
    if not any(stage.milestones for stage in stages):
        return optimizer
    schedule = LambdaLR(optimizer, [_halved(optimizer, number, one.milestones) for number, one in enumerate(stages)])
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _halved(optimizer: Adam, group: int, milestones: tuple[int, ...]) -> Callable[[int], float]:
    """What a group's rate is multiplied by; Adam counts the steps that a group has taken, and keeps them."""

    def factor(_: int) -> float:
        state = optimizer.state.get(optimizer.param_groups[group]["params"][0], {})
        return 0.5 ** sum(int(state.get("step", 0)) >= milestone for milestone in milestones)

    return factor
