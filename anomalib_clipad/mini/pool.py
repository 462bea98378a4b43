"""The training pictures: shards on disk, rendered by several processes while the training goes on."""

from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .rendering import FIELDS, render_shard

SHARD = 250
"""Pairs per shard."""


@dataclass(frozen=True)
class Shard:
    """Pairs of pictures of the same part.

    Attributes:
        images: Flawless and damaged picture (n, 2, size, size, 3) of uint8.
        masks: Pixels that the defect changed (n, size, size), 255 or 0.
        kinds: Kind of defect (n,), an index into ``damage.KINDS``.
        contrasts: How much a defect changes its pixels, relative to how much the surface around varies (n,).
    """

    images: Tensor
    masks: Tensor
    kinds: Tensor
    contrasts: Tensor

    def plainest(self, share: float) -> NDArray[np.int64]:
        """The pairs whose defects stand out most from the surface, in the order of the shard."""
        order = (-self.contrasts).argsort(stable=True)[: round(share * len(self.kinds))]
        return order.sort().values.cpu().numpy()


class Pool:
    """Shards in a folder, rendered in the background from the first to the last.

    Args:
        folder: Where shards are kept; those that are there are not rendered again.
        seed: Seed of the training.
        shards: Number of shards.
        device: Where their pictures are wanted. On the CPU they stay on disk, mapped into memory.
        workers: Number of processes that render.
        pairs: Pairs per shard.
    """

    def __init__(
        self, folder: Path, seed: int, shards: int, device: torch.device, workers: int, pairs: int = SHARD
    ) -> None:
        self._device = device
        self._executor = ProcessPoolExecutor(workers, get_context("spawn"))
        render = partial(render_shard, folder, seed, pairs=pairs)
        self._rendered: list[Future[Path]] = [self._executor.submit(render, number) for number in range(shards)]
        self._shards: dict[int, Shard] = {}

    def shard(self, number: int) -> Shard:
        """A shard, as soon as it is rendered."""
        if number not in self._shards:
            path = self._rendered[number].result()
            fields = (np.load(path / f"{name}.npy", mmap_mode="c") for name in FIELDS)
            self._shards[number] = Shard(*(torch.from_numpy(field).to(self._device) for field in fields))
        return self._shards[number]

    def close(self) -> None:
        """Stop rendering."""
        self._executor.shutdown(cancel_futures=True)
