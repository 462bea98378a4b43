"""Where the images come from that others are compared with: a training split, a folder, or the scored data itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from anomalib.data import AnomalibDataModule, ImageItem, PredictDataset
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from anomalib_clipad.data.reading import read_image
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.vision.detector import Evidence
from anomalib_clipad.vision.memory import Memory
from anomalib_clipad.vision.pool import FEW, Pool, choose, joined, key_of, one_of

logger = logging.getLogger(__name__)
_BATCH = 8
_SEED = 0
Transform = Callable[[Tensor], Tensor]


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
        _check_count("k_shot", self.k_shot, least=0)
        _check_count("memory_size", self.memory_size, least=1)
        _check_count("pool", self.pool, least=2)
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


def _check_count(name: str, value: Any, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        msg = f"{name} has to be an integer, {least} or more; got {value!r}."
        raise ValueError(msg)


def normal_images(references: References, datamodule: Any) -> tuple[Dataset, list[str]]:
    """The normal images to remember, in order, and the names of their files.

    Raises:
        ValueError: If there is no source, or it has too few images.
        FileNotFoundError: If the folder holds no image.
    """
    if references.source is not None:
        files = _Files(references.source)
        names = [str(path) for path in files.paths]
        return _first(files, range(len(names)), names, references.k_shot, f"The folder '{references.source}'")
    if not isinstance(datamodule, AnomalibDataModule) or not hasattr(datamodule, "train_data"):
        msg = (
            "k_shot takes normal images from the training split of a data module, and here is none. Pass "
            "few_shot_source, a folder of normal images."
        )
        raise ValueError(msg)
    data = datamodule.train_data
    samples = data.samples.reset_index(drop=True)
    normal = samples.index[samples["label_index"] == 0].tolist()
    names = samples["image_path"].astype(str).tolist()
    return _first(_unaugmented(data), normal, names, references.k_shot, f"The training split of {datamodule.name}")


class _Files(Dataset):
    """A folder's images, or a single one, in the order of their names."""

    def __init__(self, source: Path) -> None:
        self.paths = PredictDataset(source).image_filenames

    def __getitem__(self, index: int) -> ImageItem:
        return ImageItem(image=read_image(self.paths[index], as_tensor=True))


def _first(
    data: Dataset, rows: Sequence[int], names: list[str], count: int | None, origin: str
) -> tuple[Dataset, list[str]]:
    if len(rows) < (count or 1):
        msg = f"{origin} has {len(rows)} normal images; k_shot is {count}. Pass k_shot={len(rows)} or add images."
        raise ValueError(msg)
    chosen = list(rows[:count])
    return Subset(data, chosen), [names[row] for row in chosen]


def _unaugmented(data: Any) -> Any:
    """The same data set without the random changes of training."""
    plain = copy(data)
    plain.augmentations = None
    return plain


def fill_memory(model: ClipADModel, images: Dataset, transform: Transform, size: int | None) -> set[str]:
    """Remember normal images.

    Args:
        model: Whose detector remembers them.
        images: Data set of ``ImageItem``; each image is read alone, so that its neighbours do not change its size.
        transform: Pre-processing.
        size: Patches a stage to keep, by anomalib's greedy coreset; ``None`` for all.

    Returns:
        Keys of the images, see ``key_of``.

    Raises:
        ValueError: If an image is too small for the model's tiles, or, where they are aligned, of another shape than
            the first.
    """
    keys: set[str] = set()
    tiles, aspects = model.detector.tiles, list[float]()

    def prepare(image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        aspects.append(width / height)
        if tiles is not None:
            tiles.check_source(height, width)
            tiles.check_places(height, width, aspects[0])
        return transform(image.to(model.device))

    def batches() -> Iterator[Tensor]:
        alone = DataLoader(images, batch_size=1, collate_fn=lambda items: items[0].image[None])
        prepared = map(prepare, alone)
        while batch := list(islice(prepared, _BATCH)):
            keys.update(key_of(image[0]) for image in batch)
            model.detector.check(batch[0])
            yield torch.cat(batch)

    model.detector.remember(batches(), None if size is None else lambda memory: coreset(memory, size))
    cast("Memory", model.detector.memory).aspect.fill_(aspects[0])
    return keys


def coreset(memory: Tensor, size: int) -> Tensor:
    """At most ``size`` patches a stage, spread over all: (4, M, width) to (4, min(M, size), width).

    anomalib's k-center greedy selection, with a seed of its own.
    """
    from anomalib.models.components import KCenterGreedy

    if size >= memory.shape[1]:
        return memory
    state = np.random.get_state()  # the global state is what anomalib draws from
    np.random.seed(_SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        ratio = (size + 0.5) / memory.shape[1]  # it rounds down
        kept = [stage[KCenterGreedy(stage, ratio).select_coreset_idxs()] for stage in memory]
    np.random.set_state(state)
    return torch.stack(kept)


def fill_pool(model: ClipADModel, loader: Any, transform: Transform, limit: int, rank: int, world: int) -> Pool:
    """Let the images of a loader be compared with each other.

    Args:
        model: Which sees them.
        loader: The loader whose images will be scored; those of the pool are read from it in the same batches.
        transform: Pre-processing.
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
    chosen = set(choose(count, limit))
    seen: dict[int, tuple[Evidence, str]] = {}
    for indices, images in _batches_with(chosen, loader, transform, model.device):
        places = [place for place, index in enumerate(indices) if index in chosen]
        evidence = model.examine(images[places])
        for row, place in enumerate(places):
            seen[indices[place]] = (one_of(evidence, row), key_of(images[place]))
    if world > 1:
        seen = _gathered(seen, world)
    in_order = [seen[index] for index in sorted(seen)]
    return Pool(model.detector, joined([evidence for evidence, _ in in_order]), [key for _, key in in_order])


def _remark(count: int, limit: int) -> None:
    if count < FEW:
        logger.warning("mutual compares only %d images with each other; from %d on it is worth more.", count, FEW)
    logger.info("Mutual scoring: %d images are compared with %d of them.", count, min(limit, count))


def _batches_with(
    chosen: set[int], loader: DataLoader, transform: Transform, device: torch.device
) -> Iterator[tuple[list[int], Tensor]]:
    """Indices and pre-processed images of the loader's batches that hold a chosen image."""
    sampler = cast("Any", copy(loader.batch_sampler))  # Lightning's is its own iterator, and the run needs it
    wanted = [list(indices) for indices in sampler if not chosen.isdisjoint(indices)]
    again = DataLoader(loader.dataset, batch_sampler=wanted, collate_fn=loader.collate_fn)
    for indices, batch in zip(wanted, again, strict=True):
        yield indices, transform(batch.image.to(device))


def _gathered(seen: dict[int, Any], world: int) -> dict[int, Any]:
    """The images of all processes in each of them."""
    shares: list[Any] = [None] * world
    torch.distributed.all_gather_object(shares, seen)
    return {index: entry for share in shares for index, entry in share.items()}
