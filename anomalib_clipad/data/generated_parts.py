"""GeneratedParts: procedural parts with defects as an anomalib data module, with no download."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from anomalib.data import MVTecADDataset
from anomalib.data.datamodules.base.image import AnomalibDataModule
from anomalib.data.utils import Split, TestSplitMode, ValSplitMode
from torchvision.transforms.v2 import Transform

from anomalib_clipad.parts.categories import CATEGORIES
from anomalib_clipad.parts.folder import Settings, ensure_category
from anomalib_clipad.storage import cache_folder

from .validation import ensure_validation_data


class GeneratedParts(AnomalibDataModule):
    """Parts and surfaces made by this package, in MVTec AD's layout, the same on every machine.

    Seven kinds of defect (scratch, crack, hole, contamination, missing piece, bend, colour) with exact masks, among
    marks, reflections and dust that are no defects. They are generated when they are first needed and kept.

    Args:
        root: Folder of generated data; by default in the user's cache.
        category: What the pictures show. ``gear``, ``bracket``, ``connector``, ``weave``, ``wood`` and ``granite``
            took no part in the training of clipad-mini, nor in the choice of it.
        image_size: Height and width of the pictures in pixels.
        train_images: Number of flawless training pictures.
        good_images: Number of flawless test pictures.
        defective_images: Number of defective test pictures, over all kinds of defect.
        train_batch_size: Pictures per training batch.
        eval_batch_size: Pictures per validation and test batch.
        num_workers: Number of processes that read pictures.
        train_augmentations: Augmentations of training pictures.
        val_augmentations: Augmentations of validation pictures.
        test_augmentations: Augmentations of test pictures.
        augmentations: Augmentations where none are given for a stage.
        test_split_mode: How the test set is made, see anomalib.
        test_split_ratio: Share of test pictures where it is split off.
        val_split_mode: How the validation set is made; the paper's protocol is that of the test set.
        val_split_ratio: Share of validation pictures where they are split off.
        seed: Seed of the pictures and of splits.

    Raises:
        ValueError: If the category is unknown, a number makes no data set, or others can write to the cache.

    Example:
        >>> datamodule = GeneratedParts(category="gear", good_images=3, defective_images=7)
        >>> datamodule.category
        'gear'
    """

    CATEGORIES = tuple(CATEGORIES)

    def __init__(
        self,
        root: Path | str | None = None,
        category: str = "gear",
        image_size: int | tuple[int, int] = 240,
        train_images: int = 20,
        good_images: int = 40,
        defective_images: int = 56,
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int = 0,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        test_split_mode: TestSplitMode | str = TestSplitMode.FROM_DIR,
        test_split_ratio: float = 0.2,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int = 0,
    ) -> None:
        sides = {image_size} if isinstance(image_size, int) else set(image_size)  # pairs are get_datamodule's
        if len(sides) != 1:
            msg = f"Generated pictures are square; image_size has to be one number of pixels, not {image_size}."
            raise ValueError(msg)
        self._settings = Settings(category, seed, train_images, good_images, defective_images, sides.pop())
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            test_split_mode=test_split_mode,
            test_split_ratio=test_split_ratio,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            seed=seed,
        )
        self.root = cache_folder("generated_parts") if root is None else Path(root).expanduser()
        self.category = category

    @property
    def settings(self) -> Settings:
        """What the pictures of the category are."""
        return replace(self._settings, category=self.category)

    @property
    def folder(self) -> Path:
        """Where the pictures of these settings are, or will be."""
        return self.root / self.settings.folder

    def prepare_data(self) -> None:
        """Generate the pictures if they are not there."""
        ensure_category(self.root, self.settings)

    def _setup(self, _stage: str | None = None) -> None:
        folder = ensure_category(self.root, self.settings)
        self.train_data, self.test_data = (
            MVTecADDataset(root=folder.parent, category=folder.name, split=split) for split in (Split.TRAIN, Split.TEST)
        )
        for data in (self.train_data, self.test_data):
            data.category = self.category

    def _create_val_split(self) -> None:
        super()._create_val_split()
        ensure_validation_data(self)
