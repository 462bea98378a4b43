"""Where the images come from that others are compared with: a training split, a folder, or the scored data itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from anomalib.data import AnomalibDataModule
from torch.utils.data import DataLoader

from anomalib_clipad.checks import check_counts
from anomalib_clipad.data.replacement import readers_replaced
from anomalib_clipad.images.listing import files_in
from anomalib_clipad.images.picture import Picture, read
from anomalib_clipad.predictor.live import LivePredictor
from anomalib_clipad.vision.detector import Evidence
from anomalib_clipad.vision.pool import FEW, Pool, choose, joined, key_of, picked

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class References:
    """What images are compared with, besides the text.

    Args:
        k_shot: Number of normal images to remember; ``None`` for all that the source has.
        source: Folder of normal images, one image, or a product file, which holds a memory; ``None`` for the
            datamodule's training split.
        memory_size: Patches a stage that are kept of them, and with tiles a place; ``None`` for all.
        mutual: Compare the scored images with each other.
        pool: How many of them at most are kept for that.

    Raises:
        ValueError: If a value is not valid.
        FileNotFoundError: If the source does not exist.
    """

    k_shot: int | None = None
    source: Path | None = None
    memory_size: int | None = None
    mutual: bool = False
    pool: int = 100

    def __post_init__(self) -> None:
        check_counts(0, k_shot=self.k_shot)
        check_counts(1, memory_size=self.memory_size)
        check_counts(2, pool=self.pool)
        if self.source is not None and not self.source.exists():
            msg = f"There is no folder, image or product file '{self.source}' to take normal images from."
            raise FileNotFoundError(msg)
        if self.mutual and self.few_shot:
            msg = (
                "mutual and k_shot (or few_shot_source) cannot be used together: their distances are of different "
                "kinds, cosine to normal images and Euclidean to unlabelled ones. Choose one of them."
            )
            raise ValueError(msg)
        if self.product is not None and (self.k_shot is not None or self.memory_size is not None):
            msg = "A product file has its memory already; pass it without k_shot and memory_size."
            raise ValueError(msg)
        if self.memory_size is not None and not self.few_shot:
            msg = "memory_size bounds the memory of normal images; pass k_shot or few_shot_source with it."
            raise ValueError(msg)

    def check_tiles(self, tiles: tuple[int, int] | None, aligned: bool) -> None:
        """Check that it goes with the tiles images are cut into.

        Raises:
            ValueError: If it does not.
        """
        if self.mutual and tiles is not None:
            msg = f"mutual compares whole images and cannot be used with tiles={list(tiles)}. Choose one of them."
            raise ValueError(msg)
        if aligned and not self.few_shot:
            msg = "aligned compares tiles with those of normal images; pass k_shot or few_shot_source with it."
            raise ValueError(msg)

    @property
    def product(self) -> Path | None:
        """The product file, if the source is one."""
        return self.source if self.source is not None and self.source.suffix == ".safetensors" else None

    @property
    def few_shot(self) -> bool:
        """Whether normal images are to be remembered."""
        return self.k_shot != 0 and (self.k_shot is not None or self.source is not None)


def reference_images(references: References, datamodule: Any) -> tuple[list[str], Iterator[Picture]]:
    """The normal images to remember: the names of their files, in order, and the images.

    Raises:
        ValueError: If there is no source, or it has too few images.
        FileNotFoundError: If the folder holds no image.
    """
    if references.source is not None:
        folder = references.source
        files = files_in(folder) if folder.is_dir() else [folder]
        rows = _first(range(len(files)), references.k_shot, f"The folder '{folder}'")
        return [str(files[row]) for row in rows], (read(files[row]) for row in rows)
    if not isinstance(datamodule, AnomalibDataModule) or not hasattr(datamodule, "train_data"):
        msg = (
            "k_shot takes normal images from the training split of a data module, and here is none. Pass "
            "few_shot_source, a folder of normal images."
        )
        raise ValueError(msg)
    data = datamodule.train_data
    samples = data.samples.reset_index(drop=True)
    normal = samples.index[samples["label_index"] == 0].tolist()
    rows = _first(normal, references.k_shot, f"The training split of {datamodule.name}")
    names = samples["image_path"].astype(str).tolist()
    return [names[row] for row in rows], _items(data, rows)


def _items(data: Any, rows: Sequence[int]) -> Iterator[Picture]:
    """Images of a data set, as it reads them, without the random changes of training."""
    plain = copy(data)
    plain.augmentations = None
    for row in rows:
        with readers_replaced():
            item = plain[row]
        yield read(item.image)


def _first(rows: Sequence[int], count: int | None, origin: str) -> list[int]:
    if len(rows) < (count or 1):
        msg = f"{origin} has {len(rows)} normal images; k_shot is {count}. Pass k_shot={len(rows)} or add images."
        raise (ValueError if rows else FileNotFoundError)(msg)
    return list(rows[:count])


def fill_pool(predictor: LivePredictor, loader: Any, limit: int, rank: int, world: int) -> None:
    """Let the images of a loader be compared with each other; copies count once.

    Args:
        predictor: Which sees them.
        loader: The loader whose images will be scored; those of the pool are read from it in the same batches.
        limit: How many images at most are kept; more are chosen from by a fixed seed.
        rank: Number of this process.
        world: Number of processes.

    Raises:
        ValueError: If there is only one image, or the loader has no order to read it in.
    """
    if isinstance(loader, (list, tuple)):
        loader = loader[0]
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        msg = "mutual reads its images twice, so they have to come from a data set of known length, in batches."
        raise ValueError(msg)
    count = len(cast("Any", loader.dataset))
    if count < 2:
        msg = f"mutual compares images with each other; the data has {count} image. It takes at least 2."
        raise ValueError(msg)
    if rank == 0:
        _remark(count, limit)
    model = predictor.model
    chosen = set(choose(count, limit))
    seen: dict[int, tuple[Evidence, str]] = {}
    for indices, images in _batches_with(chosen, loader):
        places = [place for place, index in enumerate(indices) if index in chosen]
        prepared = predictor.pre_process(images.to(model.device))[places]
        evidence = model.examine(prepared)
        for row, place in enumerate(places):
            seen[indices[place]] = (picked(evidence, [row]), key_of(prepared[row]))
    if world > 1:
        seen = _gathered(seen, world)
    in_order = [seen[index] for index in sorted(seen)]
    evidence = joined([evidence for evidence, _ in in_order])
    predictor.judge_by(Pool(model.detector, evidence, [key for _, key in in_order]))


def _remark(count: int, limit: int) -> None:
    if count < FEW:
        logger.warning("mutual compares only %d images with each other; from %d on it is worth more.", count, FEW)
    logger.info("Mutual scoring: %d images are compared with %d of them.", count, min(limit, count))


def _batches_with(chosen: set[int], loader: DataLoader) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Indices and images of the loader's batches that hold a chosen image."""
    sampler = cast("Any", copy(loader.batch_sampler))  # Lightning's is its own iterator, and the run needs it
    wanted = [list(indices) for indices in sampler if not chosen.isdisjoint(indices)]
    again = DataLoader(loader.dataset, batch_sampler=wanted, collate_fn=loader.collate_fn)
    for indices, batch in zip(wanted, again, strict=True):
        yield indices, batch.image


def _gathered(seen: dict[int, Any], world: int) -> dict[int, Any]:
    """The images of all processes in each of them."""
    shares: list[Any] = [None] * world
    torch.distributed.all_gather_object(shares, seen)
    return {index: entry for share in shares for index, entry in share.items()}
