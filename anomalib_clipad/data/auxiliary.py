"""Auxiliary: training data of layers (all test splits of one data set) and a data set to test it on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from hashlib import sha256
from importlib import import_module
from operator import add
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from anomalib.data import AnomalibDataset, get_datamodule
from anomalib.data.datamodules.base.image import AnomalibDataModule
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import Transform

from .reading import read_mask_size, read_size
from .validation import ensure_validation_data

_BATCH = 8


class Auxiliary(AnomalibDataModule):
    """Training data for layers: the test splits of all categories of a source; validation and test data of a target.

    This is the paper's protocol: layers trained on one data set are tested on another. Pictures of all categories are
    mixed, each with its own category's name.

    Args:
        source: Data module with masks to train on, such as ``Visa``; its own category does not matter.
        target: Data module to validate and test on, such as ``MVTecAD`` with one category.
        categories: Categories of the source to train on; by default all it has.
        rvs_options: Parameters of the model's RVS method for the categories of the source, such as
            ``{"eps": 1.5, "min_samples": 25}``, the paper's on VisA. By default they are encoded with the model's
            own ``rvs_options``, as the target always is.
        train_batch_size: Pictures per training batch; by default as many as the variant's authors have, in each stage
            of their training.
        num_workers: Number of processes that read training pictures.
        shuffle: Whether the order changes from epoch to epoch; the paper keeps it.
        seed: Seed of the order.
        allow_overlap: Train even on pictures that are also in the target, which makes its metrics meaningless.
        train_augmentations: Augmentations of training pictures and masks.

    Raises:
        ValueError: If an argument is not valid. When the data are read, if a category has no name, a defective picture
            no mask or one of another size, no mask has a defect, or source and target share pictures.

    Example:
        >>> from anomalib_clipad.data import GeneratedParts
        >>> data = Auxiliary(GeneratedParts(), GeneratedParts(category="wood"), categories=["washer", "leather"])
        >>> data.category
        'wood'
    """

    def __init__(
        self,
        source: AnomalibDataModule | dict[str, Any],
        target: AnomalibDataModule | dict[str, Any],
        categories: list[str] | None = None,
        rvs_options: dict[str, int | float] | None = None,
        train_batch_size: int | None = None,
        num_workers: int = 0,
        shuffle: bool = False,
        seed: int = 0,
        allow_overlap: bool = False,
        train_augmentations: Transform | None = None,
    ) -> None:
        _check("categories", categories, "a list of names", not isinstance(categories, str))
        for name, number, least in (
            *(() if train_batch_size is None else (("train_batch_size", train_batch_size, 1),)),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        ):
            whole = isinstance(number, int) and not isinstance(number, bool)
            _check(name, number, f"a whole number, {least} or more", whole and number >= least)
        self.source, self.target = (
            get_datamodule(data) if isinstance(data, Mapping) else data for data in (source, target)
        )
        super().__init__(
            train_batch_size=train_batch_size,  # type: ignore[arg-type]  # the base only keeps it
            eval_batch_size=self.target.eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=self.target.val_augmentations,
            test_augmentations=self.target.test_augmentations,
            seed=seed,
        )
        self.categories = list(categories) if categories else _all_categories(self.source)
        self.rvs_options = None if rvs_options is None else dict(rvs_options)
        self.shuffle, self.allow_overlap = shuffle, allow_overlap
        self.category = self.target.category
        self.class_names: dict[str, str] = {}
        """Class name of every training picture, by its path."""
        self.batch_size_at: Callable[[int], int] = lambda _: _BATCH
        """Pictures per batch in an epoch, where ``train_batch_size`` does not say."""

    def prepare_data(self) -> None:
        """Let source and target fetch what they lack."""
        for part in self._parts():
            part.prepare_data()
        self.target.prepare_data()

    def train_dataloader(self) -> DataLoader:
        """All pictures once, in order, or in one that depends on seed and epoch alone."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        return DataLoader(
            dataset=self.train_data,
            sampler=EpochShuffle(self.train_data, self.seed or 0) if self.shuffle else None,
            batch_size=self.train_batch_size or self.batch_size_at(epoch),
            num_workers=self.num_workers,
            collate_fn=self.external_collate_fn or self.train_data.collate_fn,
        )

    def _setup(self, _stage: str | None = None) -> None:
        self.target.setup()
        ensure_validation_data(self.target)
        self.val_data, self.test_data = self.target.val_data, self.target.test_data
        tests: list[AnomalibDataset] = []
        self.class_names = {}
        for part in self._parts():
            part.setup()
            paths = [str(path) for path in part.test_data.samples.image_path]
            repeated = self.class_names.keys() & set(paths)
            if repeated:
                msg = f"The categories {self.categories} share pictures ({min(repeated)}); name each of them once."
                raise ValueError(msg)
            self.class_names.update(dict.fromkeys(paths, part.category))
            tests.append(part.test_data)
        self.train_data = reduce(add, tests)
        self._check_masks()
        if not self.allow_overlap:
            self._check_overlap()

    def _create_test_split(self) -> None:
        """It is the target's own."""

    def _create_val_split(self) -> None:
        """It is the target's own."""

    def _parts(self) -> Iterator[AnomalibDataModule]:
        """The source, once for each category, with a test split that is whole."""
        for category in self.categories:
            if not category.strip():
                msg = (
                    f"The source {self.source.name} has a category without a name, and its prompts need one. Give "
                    "`categories`, such as ['hazelnut']."
                )
                raise ValueError(msg)
            part = copy.copy(self.source)
            part.category = category
            part.val_split_mode = type(part.val_split_mode).SAME_AS_TEST
            yield part

    def _check_masks(self) -> None:
        """Every defective picture has a mask of its size, and a mask has a defect."""
        samples = self.train_data.samples
        defective = samples[samples.label_index == 1]
        missing = [row.image_path for row in defective.itertuples() if not row.mask_path]
        if missing or defective.empty:
            problem = f"{missing[0]} and {len(missing) - 1} others have none" if missing else "no picture has a defect"
            msg = (
                f"Layers need masks of defects to train on, but in {self.source.name} {self.categories} {problem}. "
                "Use a segmentation data set."
            )
            raise ValueError(msg)
        for row in defective.itertuples():
            size, mask_size = read_size(row.image_path)[::-1], read_mask_size(row.mask_path, row.image_path)[::-1]
            if size != mask_size:
                msg = (
                    f"The picture {row.image_path} is {size} pixels wide and high, its mask {row.mask_path} "
                    f"{mask_size}; they have to be of one size."
                )
                raise ValueError(msg)
        if not any(_has_defect(path) for path in defective.mask_path):
            msg = f"All masks of {self.source.name} {self.categories} are empty: there is nothing to learn from."
            raise ValueError(msg)

    def _check_overlap(self) -> None:
        """No picture of the source is one of the target, by its content."""
        training = [str(path) for path in self.train_data.samples.image_path]
        testing = {str(path) for data in (self.val_data, self.test_data) for path in data.samples.image_path}
        sizes = {Path(path).stat().st_size for path in testing}
        candidates = [path for path in training if Path(path).stat().st_size in sizes]
        known = {_digest(path) for path in testing} if candidates else set()
        shared = [path for path in candidates if _digest(path) in known]
        if shared:
            msg = (
                f"{len(shared)} training pictures are also in the target {self.target.name} '{self.category}', such as "
                f"{shared[0]}: metrics on it would mean nothing. Train on other data, or set allow_overlap."
            )
            raise ValueError(msg)


class EpochShuffle(Sampler[int]):
    """An order that depends on seed and epoch alone, so that a resumed training goes on with the right one.

    Args:
        data: What is put in order.
        seed: Seed of all epochs.
    """

    def __init__(self, data: Dataset, seed: int) -> None:
        self.length, self.seed, self.epoch = len(data), seed, 0  # type: ignore[arg-type]  # maps have a length

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng([self.seed, self.epoch]).permutation(self.length).tolist())


def _all_categories(source: AnomalibDataModule) -> list[str]:
    """The categories a data module can have, as it or its data set's module lists them; else its own."""
    listed: Sequence[str] | None = getattr(source, "CATEGORIES", None)
    if listed is None and type(source).__module__.startswith("anomalib.data.datamodules"):
        home = import_module(type(source).__module__.replace("datamodules", "datasets"))
        listed = getattr(home, "CATEGORIES", None)
    return [source.category] if listed is None else list(listed)


def _check(name: str, value: object, expected: str, valid: bool) -> None:
    if not valid:
        msg = f"Auxiliary: {name} has to be {expected}; got {value!r}."
        raise ValueError(msg)


def _has_defect(mask: str) -> bool:
    pixels = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
    return pixels is not None and bool((pixels > 0).any())


def _digest(path: str) -> bytes:
    return sha256(Path(path).read_bytes()).digest()
