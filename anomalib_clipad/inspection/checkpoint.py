"""The predictor of a Lightning checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from anomalib_clipad.checks import in_a_line
from anomalib_clipad.predictor.frame import frame
from anomalib_clipad.predictor.live import LivePredictor


def from_checkpoint(
    path: Path, class_name: str | None = None, mutual: bool = False, anew: bool = False
) -> LivePredictor:
    """The predictor of a checkpoint, with its thresholds, references and calibration.

    Args:
        path: ``.ckpt`` of ``ClipAD``.
        class_name: In place of the checkpoint's; thresholds and calibration do not hold for it.
        mutual: Whether images to judge each other will be given.
        anew: Whether references will be given.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint of ``ClipAD``, or of one that decides in a way of its own.
    """
    from anomalib_clipad import ClipAD  # only a checkpoint needs anomalib
    from anomalib_clipad.host.post_processor import ClipADPostProcessor

    if not path.is_file():
        msg = f"There is no file {path}."
        raise FileNotFoundError(msg)
    try:
        module: Any = ClipAD.load_from_checkpoint(path, map_location="cpu")
    except (KeyError, AttributeError, EOFError, RuntimeError, TypeError) as error:
        msg = f"{path} is no checkpoint of ClipAD, or is damaged ({in_a_line(error)})."
        raise ValueError(msg) from error
    module = module.eval()
    if module.references.mutual and not mutual:
        msg = (
            f"The images that {path} is for judge each other: pass them as mutual, a folder or several images, or use "
            "the engine."
        )
        raise ValueError(msg)
    if not isinstance(module.post_processor, ClipADPostProcessor):
        kind = type(module.post_processor).__name__
        msg = f"{path} decides by a post-processor of its own, {kind}, which only the engine runs. Use the engine."
        raise ValueError(msg)
    if module.pre_processor is not None and module.pre_processor.transform is None:
        msg = (
            f"{path} does not hold its pre-processing, since anomalib stores torchvision's own transforms alone. Load "
            "it with ClipAD.load_from_checkpoint, pass that pre_processor, and use the engine."
        )
        raise ValueError(msg)
    if class_name is not None and not module.model.settings.uses_text:
        msg = f"{path} compares images with each other alone, without any words. Leave out class_name '{class_name}'."
        raise ValueError(msg)
    module.prepare()
    transform = module.pre_processor.transform if module.pre_processor is not None else nn.Identity()
    predictor = LivePredictor(module.model, transform, module.post_processor, frame=frame(transform))
    predictor.references = module.preparation.predictor.references
    predictor.taught = module.preparation.predictor.taught
    predictor.look_for(class_name, anew=anew)
    return predictor
