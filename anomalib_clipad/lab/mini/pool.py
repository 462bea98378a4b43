"""The training pictures: shards rendered by several processes while the training goes on, kept where it trains."""

from __future__ import annotations

from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .rendering import RENDERED, render_shard

SHARD = 250
"""Pairs per shard."""


class Pairs(NamedTuple):
    """Pairs of pictures of the same part.

    Attributes:
        images: Flawless and damaged picture (n, 2, side, side, 3) of uint8.
        masks: Pixels that the defect changed (n, side, side), 255 or 0.
        kinds: Kind of defect (n,), an index into ``damage.KINDS``.
    """

    images: Tensor
    masks: Tensor
    kinds: Tensor


class Pool:
    """Shards in a folder, rendered in the background from the first to the last, and read as they are needed.

    Args:
        folder: Where shards are kept; those that are there are not rendered again.
        seed: Seed of the training.
        shards: Number of shards.
        device: Where their pictures are wanted. For the CPU they are in a file mapped into memory.
        workers: Number of processes that render.
        pairs: Pairs per shard.
    """

    def __init__(
        self, folder: Path, seed: int, shards: int, device: torch.device, workers: int, pairs: int = SHARD
    ) -> None:
        self.pairs, self.filled = pairs, 0
        self._executor = ProcessPoolExecutor(workers, get_context("spawn"))
        render = partial(render_shard, folder, seed, pairs=pairs)
        self._rendered: list[Future[Path]] = [self._executor.submit(render, number) for number in range(shards)]
        folder.mkdir(parents=True, exist_ok=True)
        space = partial(_space, folder, device)
        count = shards * pairs
        self._store = Pairs(
            space("images", (count, 2, RENDERED, RENDERED, 3)),
            space("masks", (count, RENDERED, RENDERED)),
            torch.empty(count, dtype=torch.int64, device=device),
        )

    def first_images(self, count: int) -> Tensor:
        """The first damaged pictures (n, side, side, 3) of the first shard, in the order they were drawn in."""
        return torch.from_numpy(np.load(self._rendered[0].result() / "images.npy", mmap_mode="c")[:count, 1])

    def fill(self, shards: int) -> None:
        """Read the first shards, waiting for them; the pairs of each come with the plainest defects first."""
        for number in range(self.filled, shards):
            path = self._rendered[number].result()
            plainest = np.argsort(-np.load(path / "contrasts.npy"), kind="stable")
            place = slice(number * self.pairs, (number + 1) * self.pairs)
            for name, field in self._store._asdict().items():
                field[place] = torch.from_numpy(np.load(path / f"{name}.npy")[plainest])
            self.filled = number + 1

    def draw(self, count: int, shards: Tensor, share: Tensor) -> Pairs:
        """Random pairs, of fixed number and without a word from the device to the host.

        Args:
            count: How many.
            shards: From how many of the first shards.
            share: From which share of each, the plainest defects.
        """
        device = self._store.kinds.device
        shard = (torch.rand(count, device=device) * shards).minimum(shards - 1).long()
        within = (torch.rand(count, device=device) * share * self.pairs).clamp(max=self.pairs - 1).long()
        chosen = shard * self.pairs + within
        return Pairs(*(field[chosen] for field in self._store))

    def close(self) -> None:
        """Stop rendering."""
        self._executor.shutdown(cancel_futures=True)


def _space(folder: Path, device: torch.device, name: str, shape: tuple[int, ...]) -> Tensor:
    """Room for pictures (shape) of uint8."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=torch.uint8, device=device)
    file = str(folder / f"{name}.bin")
    return torch.from_file(file, shared=True, size=prod(shape), dtype=torch.uint8).view(shape)
