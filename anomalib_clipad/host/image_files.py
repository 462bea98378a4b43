"""While a model of ours runs, image files are read in full depth, and those that cannot be read are named."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest.mock import patch

from anomalib.visualization.image import visualizer
from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from anomalib_clipad.data.replacement import readers_replaced, with_replacing_workers

from .pictures import visualize


class FullDepthReading(Callback):
    """Replaces the functions with which anomalib reads and shows files, from the start of a run to its end.

    Loaders start their workers before any hook but ``setup`` is called, and the strategy is the last to see a loader
    before that.
    """

    def __init__(self) -> None:
        self._replaced = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replace anomalib's functions before the loaders are set up."""
        del pl_module, stage
        strategy: Any = trainer.strategy
        process = strategy.process_dataloader

        def process_and_replace(loader: Any) -> Any:
            if isinstance(loader, DataLoader) and loader.num_workers:
                loader = with_replacing_workers(loader, _lightnings_start(trainer.global_rank))
            return process(loader)

        self._replaced.enter_context(readers_replaced())
        self._replaced.enter_context(patch.object(visualizer, "visualize_image_item", visualize))
        self._replaced.enter_context(patch.object(strategy, "process_dataloader", process_and_replace))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str | None = None) -> None:
        """Restore them."""
        del trainer, pl_module, stage
        self._replaced.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore them; a run that fails ends without a teardown."""
        del exception
        self.teardown(trainer, pl_module)


def _lightnings_start(rank: int) -> Callable[[int], None] | None:
    """What Lightning lets workers begin with after ``seed_everything(workers=True)``, if they have nothing else to."""
    return partial(pl_worker_init_function, rank=rank) if int(os.environ.get("PL_SEED_WORKERS", 0)) else None
