"""anomalib's image visualizer, with one picture per image: none overwrites another's."""

from __future__ import annotations

import os
from itertools import chain, count
from pathlib import Path
from typing import Any

from anomalib.data import ImageBatch
from anomalib.utils.path import generate_output_filename
from anomalib.visualization import ImageVisualizer
from lightning.pytorch import LightningModule, Trainer
from PIL import Image


class ClipADVisualizer(ImageVisualizer):
    """Writes the pictures of a folder into folders of the same names.

    anomalib keeps only the last folder of a path it does not know, so ``lot1/good/a.jpg`` and ``lot2/good/a.jpg`` would
    share one picture. Here, pictures of ``Engine.predict`` keep the folders below the one that all images have in
    common. Any others keep anomalib's name as long as it is free, and take more of their own path where it is not.

    Args:
        **kwargs: Those of ``anomalib.visualization.ImageVisualizer``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._root: Path | None = None
        self._written: dict[Path, Path] = {}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start anew: the pictures of an earlier run may be replaced."""
        del trainer, pl_module
        self._root, self._written = None, {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start anew, and find the folder that all images have in common."""
        self.on_test_start(trainer, pl_module)
        loaders = trainer.predict_dataloaders
        datasets = [
            getattr(loader, "dataset", None) for loader in (loaders if isinstance(loaders, list) else [loaders])
        ]
        paths = [path for data in datasets for path in getattr(data, "image_filenames", ())]
        folders = {Path(path).absolute().parent for path in paths}
        self._root = Path(os.path.commonpath(folders)) if folders else None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write a picture of each image; also called by anomalib for batches of ``Engine.predict``."""
        del pl_module, outputs, batch_idx, dataloader_idx
        self.output_dir: Path = Path(self.output_dir or Path(trainer.default_root_dir) / "images")
        for item in batch:
            picture = self.visualize(item)
            if not isinstance(picture, Image.Image):
                continue
            source = Path(item.image_path or "image").absolute()
            if source.suffix.lower() not in Image.registered_extensions():  # a name of something in memory
                source = source.with_name(f"{source.name}.png")
            target = self._free(self._target(source, getattr(trainer, "datamodule", None)), source)
            target.parent.mkdir(parents=True, exist_ok=True)
            picture.save(target)

    def _target(self, source: Path, datamodule: Any) -> Path:
        """Where the picture of an image belongs."""
        output = self.output_dir
        if self._root is not None and source.is_relative_to(self._root):
            return output / self._root.name / source.relative_to(self._root)
        name, category = (getattr(datamodule, attribute, None) for attribute in ("name", "category"))
        return generate_output_filename(source, output, name, category, mkdir=False)

    def _free(self, target: Path, source: Path) -> Path:
        """The first name that no picture of this run has: with more of the image's own path, then with a number."""
        output, folders = self.output_dir, source.parent.relative_to(source.anchor).parts
        names = [target]
        if self._written.get(target, source) != source:
            names += [output.joinpath(*folders[-depth:], source.name) for depth in range(2, len(folders) + 1)]
        numbered = (target.with_stem(f"{target.stem}-{number}") for number in count(2))
        free = next(name for name in chain(names, numbered) if name not in self._written)
        self._written[free] = source
        return free
