"""Evaluation in several processes: every image counts once.

Lightning's sampler gives each process the same number of images and repeats some where the division leaves a rest,
which moves every metric. Evaluation synchronises only at its end, so shares of different lengths do no harm.
"""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch.strategies import Strategy
from torch.utils.data import DistributedSampler

logger = logging.getLogger(__name__)


def count_once(strategy: Strategy) -> None:
    """Make a strategy's data loaders repeat nothing, from now on. To be called before they are set up.

    Args:
        strategy: That of the trainer.
    """
    process = strategy.process_dataloader

    def process_unrepeated(dataloader: Any) -> Any:
        sampler = getattr(dataloader, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            _unrepeat(sampler)
        return process(dataloader)

    strategy.process_dataloader = process_unrepeated  # type: ignore[method-assign]  # of this one strategy


def _unrepeat(sampler: DistributedSampler) -> None:
    count = len(sampler.dataset)  # type: ignore[arg-type]  # Lightning samples only what has a length
    if count < sampler.num_replicas:
        logger.warning(
            "%d images are shared by %d processes: some are counted twice. Use at most %d devices.",
            count,
            sampler.num_replicas,
            count,
        )
        return
    sampler.total_size = count
    sampler.num_samples = len(range(sampler.rank, count, sampler.num_replicas))
