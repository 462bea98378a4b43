"""What the images of a run are compared with: filled once, at its start."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable
from typing import Any, cast

from torch import Tensor

from anomalib_clipad.predictor.products import load_memory
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.vision.memory import Memory

from .familiar import Familiar, split_of
from .references import References, Transform, fill_memory, fill_pool, normal_images

logger = logging.getLogger(__name__)
_CHECKPOINT = "checkpoint"


class Comparer:
    """Fills a model's memory with normal images, and lets the images of a run judge each other.

    Args:
        model: The model whose memory and pool are filled.
        references: With what.
    """

    def __init__(self, model: ClipADModel, references: References) -> None:
        self.model, self.references = model, references
        self._origin: Hashable = None  # where the images of the memory came from
        self._keys: set[str] = set()
        self._familiar = Familiar(
            "%d of the scored images are references too: their distances are 0, and metrics come out too good."
        )

    @property
    def keys(self) -> frozenset[str]:
        """Keys of the images of the memory, unless a product file brought it; see ``key_of``."""
        return frozenset(self._keys)

    def restored(self, references: References, keys: Iterable[str] = ()) -> None:
        """Take over what a checkpoint was made with; its memory, if any, stays as it is."""
        self.references, self._keys = references, set(keys)
        self._origin = None if self.model.detector.memory is None else _CHECKPOINT

    def forget(self) -> None:
        """Let go of the memory, to fill it anew for other tiles.

        Raises:
            ValueError: If a checkpoint filled it.
        """
        if self._origin == _CHECKPOINT:
            msg = "The memory of the checkpoint was filled with other tiles. Fit the model anew with these."
            raise ValueError(msg)
        self._origin, self.model.detector.memory = None, None

    def remember(self, data: Any, transform: Transform) -> bool:
        """Fill the memory with normal images, unless that is done or a checkpoint has filled it.

        Args:
            data: The datamodule of the run, if any.
            transform: Pre-processing.

        Returns:
            Whether it was filled now.

        Raises:
            ValueError: If there are too few images, there is no source of them, or a product file does not fit.
            FileNotFoundError: If their folder does not exist or holds no image.
        """
        if not self.references.few_shot:
            return False
        origin = self.references.source or split_of(data)
        if self._origin in {origin, _CHECKPOINT} or (data is None and self._origin is not None):
            return False
        if self.references.product is not None:
            self.model.detector.memory = load_memory(self.references.product, self.model).to(self.model.device)
            self._origin = origin
            return True
        images, names = normal_images(self.references, data)
        logger.info("References: %d normal images: %s.", len(names), ", ".join(names))
        self._keys = fill_memory(self.model, images, transform, self.references.memory_size)
        self._origin = origin
        memory = cast("Memory", self.model.detector.memory)
        logger.info(
            "Without validation data, 0.5 is the distance %.3f, the largest of a normal image to %s%s.",
            float(memory.farthest),
            "the others" if len(names) > 1 else "its mirror images",
            " (the text has its own 0.5)" if self.model.settings.text_weight else "",
        )
        return True

    def gather(self, loader: Any, transform: Transform, rank: int, world: int) -> None:
        """Let the images of a loader judge each other, if they are to.

        Args:
            loader: The loader of the run.
            transform: Pre-processing.
            rank: Number of this process.
            world: Number of processes.

        Raises:
            ValueError: If there is only one image.
        """
        self.finish()
        if not self.references.mutual:
            return
        self.model.pool = fill_pool(self.model, loader, transform, self.references.pool, rank, world)
        logger.info("Without validation data, 0.5 is three spreads above the median of these images' map maxima.")

    def notice(self, images: Iterable[Tensor]) -> None:
        """Look for references among the scored images (3, H, W)."""
        self._familiar.notice(images, self._keys)

    def finish(self) -> None:
        """End a run: say which images were compared with themselves, and let go of the pool."""
        self._familiar.finish()
        self.model.pool = None
