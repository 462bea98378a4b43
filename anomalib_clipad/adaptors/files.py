"""Files of trained layers: released ones of their authors, and our own. None is ever unpickled into code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from anomalib_clipad.settings import Settings
from anomalib_clipad.storage import atomic_folder

from .base import Adaptor
from .registry import ADAPTORS
from .releases import fetch

KEY = "clip_ad"
"""What a checkpoint keeps beside weights is under this name."""
LAYERS = "model.detector.adapter."
"""Prefix of trained layers in a checkpoint's ``state_dict``."""
_FORMAT = "anomalib_clipad SDP+ layers, version 1"
_WHAT = {"image_tower": "backbone"}


def load_adapter(adapter: Adaptor, source: str, settings: Settings, image_tower: str) -> None:
    """Load trained layers from a file or a release.

    Args:
        adapter: Where the weights go.
        source: As ``adapter_file`` takes it.
        settings: Those of the model. Our own layers have to be trained with the same image tower, and with the same
            settings that they read; the authors' files say nothing of them.
        image_tower: Digest of the model's image tower.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds no trained layers, or belongs to another backbone or tap.
        WeightsUnavailableError: If a release can neither be downloaded nor found.
    """
    path = adapter_file(source)
    state, trained_under = _read(path, adapter)
    state.setdefault("trained", torch.tensor(True))
    _check_shapes(path, state, adapter)
    if not state["trained"]:
        msg = (
            f"The {adapter.title} layers {path} are not trained: they were written before the first step of a training."
        )
        raise ValueError(msg)
    ours = {**settings.as_dict(), "image_tower": image_tower}
    for name in ("image_tower", *adapter.reads):
        if name in trained_under and trained_under[name] != ours[name]:
            theirs, own = (_describe(name, values) for values in (trained_under, ours))
            msg = (
                f"The {adapter.title} layers {path} were trained with the {_WHAT.get(name, name)} {theirs}, this model "
                f"has {own}. Use the same."
            )
            raise ValueError(msg)
    adapter.load_state_dict(state)


def adapter_file(source: str) -> Path:
    """The file of trained layers.

    Args:
        source: ``visa`` or ``mvtec`` (the authors' released layers, downloaded if need be), or the path of a file,
            theirs (``.pth``) or ours (``.safetensors``, or ``.ckpt`` of a training).

    Raises:
        FileNotFoundError: If there is no such file.
        WeightsUnavailableError: If a release can neither be downloaded nor found.
    """
    releases = {name: (kind, file) for kind in ADAPTORS.values() for name, file in kind.released.items()}
    if source in releases:
        kind, file = releases[source]
        return fetch(file, f"The {kind.title} layers '{source}'")
    path = Path(source).expanduser()
    if not path.is_file():
        msg = f"There is no file of trained layers '{source}'; expected a path or one of {', '.join(releases)}."
        raise FileNotFoundError(msg)
    return path


def save_adapter(
    adapter: Adaptor,
    path: Path,
    settings: Settings,
    image_tower: str,
    trained_by: Mapping[str, Any] | None = None,
) -> None:
    """Write layers as safetensors, with what they were trained under as JSON in the metadata.

    Args:
        adapter: The layers.
        path: File to write; replaced as a whole or not at all.
        settings: Those of the model.
        image_tower: Digest of the model's image tower.
        trained_by: Facts of the training, as plain data.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in adapter.state_dict().items()}
    trained_under = {**settings.as_dict(), "image_tower": image_tower, **(trained_by or {})}
    with atomic_folder(path.parent) as folder:
        save_file(state, folder / path.name, metadata={"format": _FORMAT, "settings": json.dumps(trained_under)})


def _read(path: Path, adapter: Adaptor) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Layers and, of our own files, the settings they were trained under."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            return state, json.loads(metadata.get("settings", "{}"))
        content = torch.load(path, map_location="cpu", weights_only=True)
        if KEY not in content:
            return adapter.foreign_state(content), {}
        saved = content[KEY]
        state = {name: value for name, value in content["state_dict"].items() if name.startswith(LAYERS)}
        trained_under = {**saved["settings"], "image_tower": saved["image_tower"]}
        return {name.removeprefix(LAYERS): value for name, value in state.items()}, trained_under
    except Exception as error:  # zip, pickle, safetensors and JSON readers each raise their own
        msg = (
            f"{path} is no file of {adapter.title} layers, or is damaged ({repr(error).splitlines()[0][:200]}). "
            f"Expected safetensors or a checkpoint written by this package, or {adapter.form}."
        )
        raise ValueError(msg) from error


def _check_shapes(path: Path, state: dict[str, Tensor], adapter: Adaptor) -> None:
    given, expected = (
        {name: tuple(value.shape) for name, value in layers.items()} for layers in (state, adapter.state_dict())
    )
    if given != expected:
        names = sorted(name for name in {*given, *expected} if given.get(name) != expected.get(name))
        msg = (
            f"The {adapter.title} layers {path} do not fit the backbone: {names[0]} is "
            f"{given.get(names[0], 'missing')} in the file, the backbone needs {expected.get(names[0], 'none')} "
            f"({len(given)} tensors against {len(expected)})."
        )
        raise ValueError(msg)


def _describe(name: str, settings: dict[str, Any]) -> str:
    if name != "image_tower":
        return f"'{settings[name]}'"
    parts = [str(settings.get(part)) for part in ("backbone", "pretrained", "image_size")]
    return f"{', '.join(parts)} (image tower {settings['image_tower'][:12]})"
