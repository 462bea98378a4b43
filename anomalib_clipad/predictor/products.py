"""Product files: what one product needs of an exported graph that serves many, in a small safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from anomalib_clipad.storage import atomic_folder
from anomalib_clipad.vision.memory import Memory

if TYPE_CHECKING:
    from anomalib_clipad.torch_model import ClipADModel

_FORMAT = "anomalib_clipad product, version 1"
_KNOWN_BY = ("image_tower", "image_size", "tap", "tiles")
"""What has to be the same in the file and in the model."""


def save_product(path: Path, model: ClipADModel) -> None:
    """Write a product file.

    Its tensors are inputs of a graph exported with ``memory_input``: ``memory`` (4, M, width), ``undecided``, the map
    value whose probability is 0.5, and, if the text has a share, ``text_features`` (D, 2). ``farthest`` is the scale of
    the memory, ``aspect`` the shape of its images. Metadata: class name, settings, digest of the image tower.

    Args:
        path: File to write; replaced as a whole or not at all.
        model: A model with a memory and, if the text has a share, text features.

    Raises:
        ValueError: If it lacks one.
    """
    detector = model.detector
    if detector.memory is None or (model.settings.text_weight and model.class_name is None):
        msg = "A product file holds normal images and, unless text_weight is 0, a class name; pass both."
        raise ValueError(msg)
    tensors = {
        "memory": detector.memory.tokens,
        "farthest": detector.memory.farthest,
        "aspect": detector.memory.aspect,
        "undecided": detector.undecided(detector.memory.farthest),
    }
    if model.settings.text_weight:
        tensors["text_features"] = model.text_features
    about = {"class_name": model.class_name, "image_tower": model.fingerprint, **model.settings.as_dict()}
    with atomic_folder(path.parent) as folder:
        contents = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(contents, folder / path.name, metadata={"format": _FORMAT, "settings": json.dumps(about)})


def load_memory(path: Path, model: ClipADModel) -> Memory:
    """The memory of a product file.

    Args:
        path: Written by ``save_product``.
        model: Whose backbone, tap, image size and tiles have to be those of the file.

    Raises:
        ValueError: If the file is damaged, no product file, or of another model.
    """
    tensors, about = _read(path)
    ours = {"image_tower": model.fingerprint, **model.settings.as_dict()}
    for name in _KNOWN_BY:
        if about[name] != ours[name]:
            theirs, own = (_describe(values, name) for values in (about, ours))
            msg = f"The product file {path} is of a model with {theirs}, this one has {own}. Write it anew with this."
            raise ValueError(msg)
    return Memory(tensors["memory"], tensors["farthest"], tensors["aspect"])


def product_class(path: Path) -> str | None:
    """The class name of a product file, if it has one.

    Raises:
        ValueError: If the file is damaged, or no product file.
    """
    _, about = _read(path)
    name = about["class_name"]
    return None if name is None else str(name)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {})["settings"])
            about = {name: settings[name] for name in (*_KNOWN_BY, "backbone", "pretrained", "class_name")}
            tensors = {name: file.get_tensor(name) for name in ("memory", "farthest", "aspect")}
    except Exception as error:  # safetensors and JSON readers each raise their own
        msg = (
            f"{path} is no product file, or is damaged ({repr(error).splitlines()[0][:200]}). Expected a file written "
            "by `anomalib-clipad product`."
        )
        raise ValueError(msg) from error
    return tensors, about


def _describe(values: dict[str, Any], name: str) -> str:
    if name != "image_tower":
        return f"{name} {values[name]!r}"
    return f"backbone {values['backbone']}, {values['pretrained']} (image tower {values['image_tower'][:12]})"
