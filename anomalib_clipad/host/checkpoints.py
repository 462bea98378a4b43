"""What a Lightning checkpoint of ClipAD holds: everything but CLIP, whose weights are large and frozen."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from anomalib_clipad.adaptors.files import KEY
from anomalib_clipad.settings import Settings
from anomalib_clipad.vision.memory import NUMBERS, Memory

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule

    from anomalib_clipad.torch_model import ClipADModel

logger = logging.getLogger(__name__)
MEMORY = "model.detector.memory."
"""Prefix of a few-shot model's memory."""
_CLIP = ("model.encoder.", "model.detector.visual.")
_BACKBONE = ("backbone", "pretrained", "image_size")


def pack(checkpoint: dict[str, Any], model: ClipADModel, finished: bool) -> None:
    """Take CLIP and metrics out of a checkpoint and put class name and settings in.

    Args:
        checkpoint: What Lightning is about to write.
        model: The model it is of.
        finished: Whether training has ended with this checkpoint; then the optimizer's state, twice the size of the
            layers, is of no more use.
    """
    state = checkpoint["state_dict"]
    left_out = (*_CLIP, "evaluator.")  # results of an evaluation are no part of a model
    checkpoint["state_dict"] = {name: value for name, value in state.items() if not name.startswith(left_out)}
    checkpoint[KEY] = {
        "class_name": model.class_name,
        "settings": model.settings.as_dict(),
        "image_tower": model.fingerprint,
    }
    if finished:
        checkpoint["optimizer_states"] = []


def unpack(checkpoint: dict[str, Any], module: LightningModule, model: ClipADModel) -> None:
    """Restore class name and settings, and complete the checkpoint's state with what it leaves to the model.

    The precision stays the model's own: it belongs to a machine. Statistics of a post-processor that the model does not
    have are left out.

    Args:
        checkpoint: What Lightning has read.
        module: The module Lightning is about to restore.
        model: Its model.

    Raises:
        ValueError: If the checkpoint was not written by this version of ClipAD, or for another backbone or variant.
    """
    saved = checkpoint.get(KEY)
    if not isinstance(saved, dict) or "settings" not in saved:
        origin = "version 0.1 of anomalib_clipad" if saved else "another model"
        msg = f"The checkpoint was written by {origin}; this version cannot read it. Fit the model anew."
        raise ValueError(msg)
    settings = Settings.of(**{"joining": "sum", **saved["settings"]})  # version 0.2 had no other one
    own = model.settings
    if saved["image_tower"] != model.fingerprint:
        wanted, have = ([getattr(values, name) for name in _BACKBONE] for values in (settings, own))
        msg = (
            f"The checkpoint was written with the backbone {wanted}, this model has {have} ({', '.join(_BACKBONE)}). "
            "Construct the model with the same backbone and weights."
        )
        raise ValueError(msg)
    if settings.variant != own.variant:
        msg = (
            f"This model is of variant '{own.variant}', the checkpoint of '{settings.variant}'. Construct it with the "
            "latter."
        )
        raise ValueError(msg)
    kept = {name: getattr(own, name) for name in (*_BACKBONE, "precision")}
    model.configure(replace(settings, **kept))
    model.class_name = saved["class_name"]
    tokens = checkpoint["state_dict"].get(f"{MEMORY}tokens")
    numbers = [checkpoint["state_dict"].get(f"{MEMORY}{name}", 0.0) for name in NUMBERS]
    model.detector.memory = None if tokens is None else Memory(tokens, *numbers).to(model.text_features.device)
    checkpoint["state_dict"] = _completed(checkpoint["state_dict"], module.state_dict())


def take_normal(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Take the scores of calibration images out of a checkpoint of version 0.2, which kept them with the weights.

    Returns:
        ``score`` and ``peak`` (n,), or nothing.
    """
    found: dict[str, Tensor] = {}
    for state in (*checkpoint.get("callbacks", {}).values(), checkpoint["state_dict"]):
        for name in [name for name in state if name.endswith(("normal.score", "normal.peak"))]:
            found[name.rpartition(".")[2]] = state.pop(name)
    return found


def _completed(saved: dict[str, Tensor], current: dict[str, Tensor]) -> dict[str, Tensor]:
    """The saved state with the names of the current one."""
    unknown = sorted(saved.keys() - current.keys())
    if unknown:
        logger.warning("The model has no place for %s of the checkpoint.", ", ".join(unknown))
    return {name: saved.get(name, value) for name, value in current.items()}
