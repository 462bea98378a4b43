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
from .pickled import UnknownClassError, read_plain
from .registry import ADAPTORS
from .releases import fetch

KEY = "clip_ad"
"""What a checkpoint keeps beside weights is under this name."""
LAYERS = "model.detector.adapter."
"""Prefix of trained layers in a checkpoint's ``state_dict``."""
_FORMAT = "anomalib_clipad {} layers, version 1"
_WHAT = {"image_tower": "backbone"}
_Content = tuple[dict[str, Tensor], dict[str, Any]]
"""Layers and, of our own files, the settings they were trained under."""


class TrainedLayers:
    """Trained layers of a file or a release. What was read to know their variant is not read again to load them.

    Args:
        source: As ``adapter_file`` takes it.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = str(source)
        self._content: _Content | None = None

    def settings(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Settings with the variant, and of a release the backbone, that the layers belong to.

        Args:
            chosen: The settings a user chose, or some of them.

        Raises:
            ValueError: If a release belongs to another backbone than the one that was chosen.
        """
        kind = next((kind for kind in ADAPTORS.values() if self.source in kind.released), None)
        if kind is None:
            return {**chosen, "variant": self._variant(chosen.get("variant", "sdp"))}
        own, defaults = dict(chosen), Settings()
        for name, wanted in kind.backbone.items():
            given = own.setdefault(name, getattr(defaults, name))
            if given == getattr(defaults, name):
                own[name] = wanted
            elif given != wanted and not str(given).startswith(f"{wanted}:"):
                msg = f"The layers '{self.source}' belong to {name} {wanted!r}; got {given!r}. Leave out {name}."
                raise ValueError(msg)
        return {**own, "variant": _name_of(kind)}

    def load(self, adapter: Adaptor, settings: Settings, image_tower: str) -> None:
        """Load them into a model.

        Args:
            adapter: Where the weights go.
            settings: Those of the model. Our own layers have to be trained with the same image tower, and with the
                same settings that they read; the authors' files say nothing of them.
            image_tower: Digest of the model's image tower.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged, holds no trained layers, or belongs to another backbone or tap.
            WeightsUnavailableError: If a release can neither be downloaded nor found.
        """
        path = adapter_file(self.source)
        content, self._content = self._content, None
        state, trained_under = content or _read(path, adapter)
        adapter.adapt(state)
        state.setdefault("trained", torch.tensor(True))
        _check_shapes(path, state, adapter)
        if not state["trained"]:
            msg = (
                f"The {adapter.title} layers {path} are not trained: they were written before the first step of a "
                "training."
            )
            raise ValueError(msg)
        ours = {**settings.as_dict(), "image_tower": image_tower}
        for name in ("image_tower", *adapter.reads):
            if name in trained_under and trained_under[name] != ours[name]:
                theirs, own = (_describe(name, values) for values in (trained_under, ours))
                msg = (
                    f"The {adapter.title} layers {path} were trained with the {_WHAT.get(name, name)} {theirs}, this "
                    f"model has {own}. Use the same."
                )
                raise ValueError(msg)
        adapter.load_state_dict(state)

    def _variant(self, chosen: str) -> str:
        """What a folder or a file of ours says it is of; else the chosen variant, or the first one with layers."""
        path = Path(self.source).expanduser()
        kind = _kind_of(path)
        if kind is not None:
            return _name_of(kind)
        try:
            self._content = _own(path)
        except Exception:  # whatever a damaged file raises is said when it is loaded
            self._content = None
        named = None if self._content is None else self._content[1].get("variant")
        if named in ADAPTORS:
            return str(named)
        return chosen if chosen in ADAPTORS else next(iter(ADAPTORS))


def adapter_file(source: str) -> Path:
    """The file of trained layers.

    Args:
        source: The name of layers that were released, downloaded if need be: ``visa`` or ``mvtec`` of SDP+,
            ``af_clip_visa`` or ``af_clip_mvtec``; or the path of a file, theirs (``.pth``) or ours (``.safetensors``,
            or ``.ckpt`` of a training); or of a folder with the authors' two files.

    Returns:
        A file, or a folder where several belong together.

    Raises:
        FileNotFoundError: If there is no such file.
        WeightsUnavailableError: If a release can neither be downloaded nor found.
    """
    releases = {name: kind for kind in ADAPTORS.values() for name in kind.released}
    if source in releases:
        kind = releases[source]
        paths = fetch(kind.released[source], f"The {kind.title} layers '{source}'")
        return paths[0].parent if kind.parts else paths[0]
    path = Path(source).expanduser()
    if path.is_dir():
        if _kind_of(path) is None:
            forms = "; ".join(f"{kind.title}: {' and '.join(kind.parts)}" for kind in ADAPTORS.values() if kind.parts)
            msg = f"The folder {path} holds no trained layers. Expected one file of each name ({forms})."
            raise FileNotFoundError(msg)
        return path
    if not path.is_file():
        msg = f"There is no file of trained layers '{source}'; expected a path or one of {', '.join(releases)}."
        raise FileNotFoundError(msg)
    return path


def _name_of(kind: type[Adaptor]) -> str:
    """The variant's name."""
    return next(name for name, one in ADAPTORS.items() if one is kind)


def _kind_of(folder: Path) -> type[Adaptor] | None:
    """Whose authors' files a folder holds."""
    for kind in ADAPTORS.values():
        if kind.parts and folder.is_dir() and all(len(list(folder.glob(part))) == 1 for part in kind.parts):
            return kind
    return None


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
        save_file(
            state,
            folder / path.name,
            metadata={"format": _FORMAT.format(adapter.title), "settings": json.dumps(trained_under)},
        )


def _read(path: Path, adapter: Adaptor) -> _Content:
    """Layers and, of our own files, the settings they were trained under."""
    try:
        if path.is_dir():
            return adapter.foreign_state([next(path.glob(part)) for part in adapter.parts]), {}
        own = _own(path)
        return (adapter.foreign_state([path]), {}) if own is None else own
    except UnknownClassError:
        raise
    except Exception as error:  # zip, pickle, safetensors and JSON readers each raise their own
        msg = (
            f"{path} is no file of {adapter.title} layers, or is damaged ({repr(error).splitlines()[0][:300]}). "
            f"Expected safetensors or a checkpoint written by this package, or {adapter.form}."
        )
        raise ValueError(msg) from error


def _own(path: Path) -> _Content | None:
    """The same of one of our own files; ``None`` if it is another one."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        return state, json.loads(metadata.get("settings", "{}"))
    content = read_plain(path)
    if KEY not in content:
        return None
    saved = content[KEY]
    state = {name: value for name, value in content["state_dict"].items() if name.startswith(LAYERS)}
    trained_under = {**saved["settings"], "image_tower": saved["image_tower"]}
    return {name.removeprefix(LAYERS): value for name, value in state.items()}, trained_under


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
