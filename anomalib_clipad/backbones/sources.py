"""Where a backbone comes from: an open_clip name, a hub or local folder, a configuration file, or this package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import open_clip
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import EntryNotFoundError

DEFAULT_TAG = "laion400m_e31"
BUNDLED = "clipad-mini"
OFFLINE_ADVICE = (
    f"To run without a network, download that file on another machine and pass its path as `pretrained`, or use "
    f"backbone='{BUNDLED}', which is part of this package."
)
_HUB_CONFIG = "open_clip_config.json"
_HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class WeightsUnavailableError(RuntimeError):
    """Weights could not be downloaded and are not in the cache."""


@dataclass(frozen=True)
class Source:
    """A backbone before it is built.

    Attributes:
        name: What the user called it.
        config: open_clip model configuration.
        weights: File of weights; ``None`` for random ones.
        preprocess: What is known of the weights' own image normalisation (``mean``, ``std``) and activation.
    """

    name: str
    config: dict[str, Any]
    weights: Path | None
    preprocess: dict[str, Any]


def find_source(backbone: str, pretrained: str | None) -> Source:
    """Resolve the names a user gives; downloads weights where the names ask for it.

    Args:
        backbone: open_clip model name, ``hf-hub:``/``local-dir:`` name, ``clipad-mini`` or path of a JSON file.
        pretrained: open_clip tag or path of a weights file. The default tag means "its own" to folders and
            clipad-mini; ``None`` means random weights.

    Raises:
        ValueError: If a name, a tag or a file does not exist or does not fit the other argument.
        WeightsUnavailableError: If a download fails.
    """
    if backbone == BUNDLED:
        return _bundled(pretrained)
    if backbone.startswith("hf-hub:"):
        return _folder(backbone, pretrained, *_download_folder(backbone.removeprefix("hf-hub:")))
    if backbone.startswith("local-dir:"):
        return _folder(backbone, pretrained, *_local_folder(Path(backbone.removeprefix("local-dir:")).expanduser()))
    if backbone.endswith(".json"):
        return _config_file(Path(backbone).expanduser(), pretrained)
    return _open_clip_name(backbone, pretrained)


def built_in_config(backbone: str) -> dict[str, Any] | None:
    """The configuration of an open_clip model name; ``None`` for every other way to name a backbone."""
    return None if ":" in backbone else open_clip.get_model_config(backbone.replace("/", "-"))


def _bundled(pretrained: str | None) -> Source:
    folder = Path(__file__).parents[1] / "mini"
    config, _ = _read_config(folder / f"{BUNDLED}.json")
    weights = folder / f"{BUNDLED}.safetensors" if pretrained == DEFAULT_TAG else _weights_file(pretrained)
    return Source(BUNDLED, config, weights, {})


def _open_clip_name(name: str, pretrained: str | None) -> Source:
    config, name = built_in_config(name), name.replace("/", "-")
    if config is None:
        close = get_close_matches(name, open_clip.list_models(), cutoff=0.4)
        hint = f" (did you mean {close}?)" if close else ""
        msg = (
            f"Unknown backbone '{name}'. Expected an open_clip model name{hint}, "
            f"'hf-hub:owner/model', 'local-dir:/folder', the path of a model configuration (.json) or '{BUNDLED}'."
        )
        raise ValueError(msg)
    tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
    if not tag:
        tags = open_clip.list_pretrained_tags_by_model(name)
        return Source(name, config, _weights_file(pretrained, f"a tag of {name} ({', '.join(tags) or 'none'})"), {})
    return Source(name, config, _download_tag(name, pretrained, tag), tag)


def _download_tag(name: str, tag: str | None, tag_config: dict[str, Any]) -> Path:
    try:
        with _offline_where_unreachable():
            return Path(open_clip.download_pretrained(tag_config))
    except Exception as error:  # urllib, requests, httpx and the hub's client each raise their own
        place = tag_config.get("url") or f"https://huggingface.co/{tag_config.get('hf_hub', '').rstrip('/')}"
        msg = f"The weights '{tag}' of {name} could not be downloaded from {place} ({error}). {OFFLINE_ADVICE}"
        raise WeightsUnavailableError(msg) from error


def _config_file(path: Path, pretrained: str | None) -> Source:
    if not path.is_file():
        msg = f"The model configuration {path} does not exist; expected the path of an open_clip JSON file."
        raise ValueError(msg)
    if pretrained == DEFAULT_TAG:
        msg = (
            f"The backbone {path} is a configuration file, which has no weights '{pretrained}'. Pass the path of its "
            "weights as `pretrained`, or null for random weights."
        )
        raise ValueError(msg)
    config, preprocess = _read_config(path)
    return Source(path.stem, config, _weights_file(pretrained), preprocess)


def _folder(name: str, pretrained: str | None, config_file: Path, weights: Path) -> Source:
    config, preprocess = _read_config(config_file)
    return Source(name, config, weights if pretrained == DEFAULT_TAG else _weights_file(pretrained), preprocess)


def _local_folder(folder: Path) -> tuple[Path, Path]:
    config = folder / _HUB_CONFIG
    weights = next((folder / name for name in _HUB_WEIGHTS if (folder / name).is_file()), None)
    if not config.is_file() or weights is None:
        msg = (
            f"The folder {folder} is no open_clip model: expected {_HUB_CONFIG} and {' or '.join(_HUB_WEIGHTS)} in it."
        )
        raise ValueError(msg)
    return config, weights


def _download_folder(repository: str) -> tuple[Path, Path]:
    try:
        with _offline_where_unreachable():
            config = hf_hub_download(repository, _HUB_CONFIG)
            try:
                weights = hf_hub_download(repository, _HUB_WEIGHTS[0])
            except EntryNotFoundError:  # an older repository holds only the second format
                weights = hf_hub_download(repository, _HUB_WEIGHTS[1])
    except Exception as error:  # the hub's client raises errors of several libraries
        msg = (
            f"The model '{repository}' ({_HUB_CONFIG} and {' or '.join(_HUB_WEIGHTS)}) could not be downloaded from "
            f"https://huggingface.co/{repository} ({error}). To run without a network, put both files into a folder "
            f"and use backbone='local-dir:/that/folder', or use backbone='{BUNDLED}'."
        )
        raise WeightsUnavailableError(msg) from error
    return Path(config), Path(weights)


@contextmanager
def _offline_where_unreachable() -> Iterator[None]:
    """Let the hub's client answer from its cache at once where it would retry for a minute first."""
    was_offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = was_offline or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def _reachable(address: str) -> bool:
    try:
        urlopen(Request(address, method="HEAD"), timeout=10).close()
    except HTTPError:
        return True  # it answered
    except OSError:
        return False
    return True


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model configuration in a JSON file, bare or as the hub wraps it, and its pre-processing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"The model configuration {path} is not JSON: {error}"
        raise ValueError(msg) from error
    config = content.get("model_cfg", content) if isinstance(content, dict) else {}
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config)
    if missing:
        msg = f"The model configuration {path} lacks {', '.join(sorted(missing))}; expected open_clip's JSON format."
        raise ValueError(msg)
    return config, content.get("preprocess_cfg", {})


def _weights_file(pretrained: str | None, alternative: str = "") -> Path | None:
    if pretrained is None:
        return None
    path = Path(pretrained).expanduser()
    if not path.is_file():
        expected = " or ".join(["the path of a weights file", *filter(None, [alternative])])
        msg = f"No weights '{pretrained}': expected {expected}."
        raise ValueError(msg)
    return path
