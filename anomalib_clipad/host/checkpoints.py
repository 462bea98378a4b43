"""What a Lightning checkpoint of ClipAD holds: everything but CLIP, which is large and never changes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from anomalib_clipad.torch_model import ClipADModel

CLIP = "model.clip."
KEY = "clip_ad"
_BACKBONE = ("backbone", "pretrained", "image_size")


def pack(checkpoint: dict[str, Any], model: ClipADModel, trained: bool, finished: bool) -> None:
    """Take CLIP out of a checkpoint and put class name and options in.

    Args:
        checkpoint: What Lightning is about to write.
        model: The model it is of.
        trained: Whether its layers, if it has any, are trained ones.
        finished: Whether training has ended with this checkpoint; then the optimizer's state, twice the size of the
            layers, is of no more use.
    """
    state = checkpoint["state_dict"]
    checkpoint["state_dict"] = {name: value for name, value in state.items() if not name.startswith(CLIP)}
    checkpoint[KEY] = {
        "class_name": model.class_name,
        "options": model.options(),
        "image_tower": model.fingerprint,
        "trained": trained,
    }
    if finished:
        checkpoint["optimizer_states"] = []


def unpack(checkpoint: dict[str, Any], model: ClipADModel, given: Mapping[str, Any], name: str | None) -> bool:
    """Restore class name and options; the checkpoint gets the CLIP of the model, if it was written with the same.

    Args:
        checkpoint: What Lightning has read.
        model: The model it is for.
        given: The model's hyper-parameters, for messages.
        name: The class name the model was constructed with.

    Returns:
        Whether the checkpoint's layers are trained ones.

    Raises:
        ValueError: If the checkpoint was written with another backbone, or with layers where the model has none, or
            without where it has some.
    """
    saved = checkpoint[KEY]
    if saved["image_tower"] != model.fingerprint:
        wanted, have = ([values.get(key) for key in _BACKBONE] for values in (checkpoint["hyper_parameters"], given))
        msg = (
            f"The checkpoint was written with the backbone {wanted}, this model has {have} ({', '.join(_BACKBONE)}). "
            "Construct the model with the same backbone and weights."
        )
        raise ValueError(msg)
    has_layers = any(key.startswith("model.adapter.") for key in checkpoint["state_dict"])
    if has_layers != (model.adapter is not None):
        kinds = ["sdp", "sdp_plus"] if has_layers else ["sdp_plus", "sdp"]
        msg = f"This model is of variant '{kinds[0]}', the checkpoint of '{kinds[1]}'. Construct it with the latter."
        raise ValueError(msg)
    if name not in {None, saved["class_name"]}:
        warnings.warn(
            f"The checkpoint is for the class '{saved['class_name']}', which replaces '{name}'.",
            stacklevel=2,
        )
    model.configure(**saved["options"])
    model.class_name = saved["class_name"]
    clip = model.clip.state_dict(prefix=CLIP)
    checkpoint["state_dict"].update(clip)
    return bool(saved["trained"])
