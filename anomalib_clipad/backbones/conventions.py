"""How weights were trained: activation and normalisation, which belong to weights and are in no weights file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip

from .configuration import VISION_DEFAULTS, read_config

HUB_CONFIG = "open_clip_config.json"
_ARCHITECTURE = ("layers", "width", "patch_size")


def trained_as(name: str, tag: str) -> dict[str, Any]:
    """What open_clip knows of a tag: ``url``, ``hf_hub``, ``mean``, ``std``, ``quick_gelu``; empty for no tag of it."""
    known = dict(open_clip.get_pretrained_cfg(name, tag))
    if tag.lower() == "openai" or "quickgelu" in _file_name(known):
        known["quick_gelu"] = True  # open_clip does not say so before 2.30
    return known if "url" in known or "hf_hub" in known else {}


def recognise(weights: Path, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """``mean``, ``std`` and ``quick_gelu`` of a weights file, as far as its place tells.

    It is known by the name under which one of the model's tags is published (of the file, or of the repository among
    its folders), or else by the configuration beside it. Where neither is there and the model's tags differ, a warning
    says what is assumed.

    Args:
        weights: The file.
        name: open_clip model name.
        config: Its configuration.
    """
    parts = {part.lower() for path in (weights.absolute(), weights.resolve()) for part in path.parts}
    tags = {tag: trained_as(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)}
    for known in tags.values():
        if parts & _published_names(known):
            return known
    beside = _configuration_beside(weights, config)
    if beside is not None:
        return beside
    assumed = _way(config, {})
    others = [tag for tag, known in tags.items() if _way(config, known) != assumed]
    if others:
        warnings.warn(
            f"Which activation and normalisation the weights in {weights} were trained with is not known: assumed are "
            f"{assumed}, but {', '.join(others)} of '{name}' have others, and with the wrong ones scores and maps are "
            f"worse. If the file is that of a tag, say so: pretrained='{others[0]}:{weights}', with its tag.",
            stacklevel=6,
        )
    return {}


def _way(config: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    activation = "QuickGELU" if config.get("quick_gelu") or known.get("quick_gelu") else "GELU"
    mean = tuple(known.get("mean") or open_clip.OPENAI_DATASET_MEAN)
    return f"{activation}, mean {mean} and std {tuple(known.get('std') or open_clip.OPENAI_DATASET_STD)}"


def _file_name(known: Mapping[str, Any]) -> str:
    return str(known.get("url") or "").rpartition("/")[2].lower()


def _published_names(known: Mapping[str, Any]) -> set[str]:
    """Names of a tag's file and of its repository: as a folder, and as a folder of the hub's cache; in lower case."""
    owner, _, rest = str(known.get("hf_hub") or "").lower().partition("/")
    repository = rest.partition("/")[0]
    return {_file_name(known), repository, f"models--{owner}--{repository}"} - {"", "models----"}


def _configuration_beside(weights: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the hub's configuration in the folder of the weights says, if it is of the same architecture."""
    for folder in (weights.parent, weights.resolve().parent):
        try:
            beside, preprocess = read_config(folder / HUB_CONFIG)
        except ValueError:
            continue
        if _shape(beside) == _shape(config):
            return {**preprocess, "quick_gelu": beside.get("quick_gelu")}
    return None


def _shape(config: Mapping[str, Any]) -> list[Any]:
    given = config["vision_cfg"]
    vision = {**VISION_DEFAULTS, **(given if isinstance(given, dict) else {})}
    return [config["embed_dim"], *(vision[key] for key in _ARCHITECTURE)]
