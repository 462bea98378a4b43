"""Files of SDP+ layers: the authors' released ones and our own. None of them is ever unpickled into code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from anomalib_clipad.backbones.backbone import WeightsUnavailableError
from anomalib_clipad.settings import Settings
from anomalib_clipad.storage import atomic_folder, cache_folder
from anomalib_clipad.vision.adapter import LinearAdapter

KEY = "clip_ad"
"""What a checkpoint keeps beside weights is under this name."""
LAYERS = "model.detector.adapter."
"""Prefix of the layers of SDP+ in a checkpoint's ``state_dict``."""
_COMMIT = "f004973a41344d8c0966934af0c01781989b80e3"
_URL = f"https://raw.githubusercontent.com/ByChelsea/CLIP-AD/{_COMMIT}/pretrained_models"
_TIMEOUT = 60
_FORMAT = "anomalib_clipad SDP+ layers, version 1"


class Release(NamedTuple):
    """A file of the authors: its name, and its git blob id, by which it is recognised."""

    file: str
    blob_id: str


RELEASED = {
    "visa": Release("train_on_visa.pth", "854cc1034a1d49207f66b2ca20fd2c7aefbb75ca"),
    "mvtec": Release("train_on_mvtec.pth", "d9102b131ceb8d1d668fbf6bce4e6940eb02986c"),
}
"""Released layers by the data set they were trained on; for ViT-B-16-plus-240 with laion400m_e31."""


def load_adapter(adapter: LinearAdapter, source: str, settings: Settings, image_tower: str) -> None:
    """Load trained layers from a file or a release.

    Args:
        adapter: Where the weights go.
        source: As ``adapter_file`` takes it.
        settings: Those of the model. Our own layers have to be trained with the same tap and image tower; the authors'
            files say nothing of them.
        image_tower: Digest of the model's image tower.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds no trained layers, or belongs to another backbone or tap.
        WeightsUnavailableError: If a release can neither be downloaded nor found.
    """
    path = adapter_file(source)
    state, trained_under = _read(path)
    state.setdefault("trained", torch.tensor(True))
    _check_shapes(path, state, adapter)
    if not state["trained"]:
        msg = f"The SDP+ layers {path} are not trained: they were written before the first step of a training."
        raise ValueError(msg)
    ours = {**settings.as_dict(), "image_tower": image_tower}
    for name, what in {"image_tower": "backbone", "tap": "tap"}.items():
        if name in trained_under and trained_under[name] != ours[name]:
            theirs, own = (_describe(name, values) for values in (trained_under, ours))
            msg = f"The SDP+ layers {path} were trained with the {what} {theirs}, this model has {own}. Use the same."
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
    path = released_adapter(source) if source in RELEASED else Path(source).expanduser()
    if not path.is_file():
        msg = f"There is no file of SDP+ layers '{source}'; expected a path or one of {', '.join(RELEASED)}."
        raise FileNotFoundError(msg)
    return path


def save_adapter(
    adapter: LinearAdapter,
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


def released_adapter(name: str) -> Path:
    """The authors' file, downloaded once into the cache and verified each time before anything reads it.

    Raises:
        ValueError: If the file in the cache is not the released one, or others can write to the cache.
        WeightsUnavailableError: If it is not in the cache and cannot be downloaded.
    """
    release = RELEASED[name]
    path = cache_folder("adapters", create=False) / release.file
    url = f"{_URL}/{release.file}"
    if path.exists():
        if _blob_id(path.read_bytes()) != release.blob_id:
            msg = f"{path} is not the file that was released (git blob {release.blob_id}). Delete it and try again."
            raise ValueError(msg)
        return path
    try:
        with urlopen(url, timeout=_TIMEOUT) as response:
            content = response.read()
    except OSError as error:
        msg = (
            f"The SDP+ layers '{name}' could not be downloaded from {url}: {error}. Without a network, put that file "
            f"at {path}, or pass the path of your own layers as `adapter`."
        )
        raise WeightsUnavailableError(msg) from error
    if _blob_id(content) != release.blob_id:
        msg = f"What {url} gave is not the released file (git blob {release.blob_id}); nothing was kept of it."
        raise ValueError(msg)
    with atomic_folder(cache_folder("adapters")) as folder:
        (folder / path.name).write_bytes(content)
    return path


def _blob_id(content: bytes) -> str:
    """The id git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Layers and, of our own files, the settings they were trained under."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            return state, json.loads(metadata.get("settings", "{}"))
        content = torch.load(path, map_location="cpu", weights_only=True)
        if KEY not in content:
            return dict(content["linear_layers"]), {}
        saved = content[KEY]
        state = {name: value for name, value in content["state_dict"].items() if name.startswith(LAYERS)}
        trained_under = {**saved["settings"], "image_tower": saved["image_tower"]}
        return {name.removeprefix(LAYERS): value for name, value in state.items()}, trained_under
    except Exception as error:  # zip, pickle, safetensors and JSON readers each raise their own
        msg = (
            f"{path} is no file of SDP+ layers, or is damaged ({repr(error).splitlines()[0][:200]}). Expected "
            "safetensors or a checkpoint written by this package, or the authors' format: a dict with 'linear_layers'."
        )
        raise ValueError(msg) from error


def _check_shapes(path: Path, state: dict[str, Tensor], adapter: LinearAdapter) -> None:
    given, expected = (
        {name: tuple(value.shape) for name, value in layers.items()} for layers in (state, adapter.state_dict())
    )
    if given != expected:
        names = sorted(name for name in {*given, *expected} if given.get(name) != expected.get(name))
        msg = (
            f"The SDP+ layers {path} do not fit the backbone: {names[0]} is {given.get(names[0], 'missing')} in the "
            f"file, the backbone needs {expected.get(names[0], 'none')} ({len(given)} tensors against {len(expected)})."
        )
        raise ValueError(msg)


def _describe(name: str, settings: dict[str, Any]) -> str:
    if name == "tap":
        return f"'{settings['tap']}'"
    parts = [str(settings.get(part)) for part in ("backbone", "pretrained", "image_size")]
    return f"{', '.join(parts)} (image tower {settings['image_tower'][:12]})"
