"""A model of an inspector in a file: a checkpoint or a product file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_clipad.predictor.products import save_product
from anomalib_clipad.storage import atomic_folder

if TYPE_CHECKING:
    from anomalib_clipad.predictor.live import LivePredictor

SUFFIXES = (".ckpt", ".safetensors")
"""Of a checkpoint and of a product file."""


def check_suffix(path: Path) -> None:
    """Check that a file can be written.

    Raises:
        ValueError: If it is neither a checkpoint nor a product file.
    """
    if path.suffix not in SUFFIXES:
        msg = f"A model is written to a checkpoint (.ckpt) or a product file (.safetensors); got {path}."
        raise ValueError(msg)


def save(predictor: LivePredictor, path: Path, origin: Path | None) -> Path:
    """Write a model; see ``Inspector.save``.

    Args:
        predictor: The model.
        path: The file; replaced as a whole or not at all.
        origin: The checkpoint that the model is from, if it is from one: what only the engine knows is taken from it.

    Returns:
        The file.
    """
    check_suffix(path)
    if predictor.model.pool is not None:
        msg = "Images that judge each other are those of a run, and no file holds them. Leave out mutual."
        raise ValueError(msg)
    if path.suffix == ".ckpt":
        _save_checkpoint(predictor, path, origin)
        return path
    if predictor.raw_normal is not None:
        msg = f"{path}: a product file holds no calibration. Write a checkpoint (.ckpt), or leave out the calibration."
        raise ValueError(msg)
    save_product(path, predictor)
    return path


def _save_checkpoint(predictor: LivePredictor, path: Path, origin: Path | None) -> None:
    from lightning.pytorch import Trainer

    from anomalib_clipad import ClipAD

    module: Any = _module(ClipAD, predictor, origin)
    own, normal = module.preparation.predictor, predictor.raw_normal
    if isinstance(predictor.processor, type(module.post_processor)):
        module.post_processor = own.processor = deepcopy(predictor.processor)
    own.keep_normal(normal)
    module.post_processor.false_alarm_rate = None if normal is None else normal.rate
    own.model.configure(predictor.model.settings)
    own.model.class_name = module.class_name = predictor.class_name
    own.model.detector.memory = predictor.model.detector.memory
    own.model.text_features = predictor.model.text_features
    own.references, own.taught = predictor.references, predictor.taught
    own.serve()
    module.preparation.files = module.preparation.defects = []
    module._record_settings()
    with _silent():
        trainer = Trainer(logger=False, accelerator="cpu", devices=1, enable_progress_bar=False)
    trainer.strategy.connect(module)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(path.parent) as folder:
        trainer.save_checkpoint(folder / path.name)


@contextmanager
def _silent() -> Iterator[None]:
    """Without what a trainer says of the hardware of a machine: nothing is trained."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _module(kind: Any, predictor: LivePredictor, origin: Path | None) -> Any:
    """The engine's model of the same weights and layers."""
    if origin is not None:
        return kind.load_from_checkpoint(origin, map_location="cpu")
    module = kind(predictor.class_name, **predictor.model.settings.as_dict())
    if predictor.model.adapter is not None:
        module.model.adapter.load_state_dict(predictor.model.adapter.state_dict())
    return module
