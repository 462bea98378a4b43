"""Model configurations in open_clip's format: read, and checked before anything is downloaded or built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalib_clipad.checks import is_number, is_whole
from anomalib_clipad.vision.dual_path import STAGES

VISION_DEFAULTS = {"layers": 12, "width": 768, "head_width": 64, "patch_size": 16, "image_size": 224}
_TEXT_DEFAULTS = {"layers": 12, "width": 512, "heads": 8, "context_length": 77, "vocab_size": 49408}
"""open_clip's defaults of the sizes that a configuration may leave out."""


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model configuration in a JSON file, bare or as the hub wraps it, and its pre-processing.

    Raises:
        ValueError: If it cannot be read or is no model configuration.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"The model configuration {path} cannot be read: {error}"
        raise ValueError(msg) from error
    except ValueError as error:  # not JSON, or not text
        msg = f"The model configuration {path} is not JSON: {error}"
        raise ValueError(msg) from error
    config = content.get("model_cfg", content) if isinstance(content, dict) else {}
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config if isinstance(config, dict) else ())
    if missing:
        msg = f"The model configuration {path} lacks {', '.join(sorted(missing))}; expected open_clip's JSON format."
        raise ValueError(msg)
    preprocess = content.get("preprocess_cfg") or {}
    if not isinstance(preprocess, dict):
        msg = f"`preprocess_cfg` of {path} has to be an object with `mean` and `std`; got {preprocess!r}."
        raise ValueError(msg)
    return config, preprocess


def check_config(config: Mapping[str, Any], name: str, image_size: int | None) -> None:
    """Check what can be told from a configuration.

    Args:
        config: open_clip model configuration.
        name: What the user calls the model.
        image_size: Height and width of the input that the user wants; ``None`` takes the configuration's.

    Raises:
        ValueError: If CLIP-AD cannot run on such a model, or there is no such model.
    """
    vision, text = (_part(config, key, name) for key in ("vision_cfg", "text_cfg"))
    if "timm_model_name" in vision:
        raise unsupported(name, f"a timm tower ({vision['timm_model_name']})")
    if isinstance(vision.get("layers"), (list, tuple)):
        raise unsupported(name, "a ResNet")
    _whole(config.get("embed_dim"), "embed_dim", name)
    vision = {**VISION_DEFAULTS, **vision}
    size = vision["image_size"] if image_size is None else image_size
    for key in ("layers", "width", "head_width", "patch_size"):
        _whole(vision[key], f"vision_cfg.{key}", name)
    if vision["layers"] % STAGES:
        layers = vision["layers"]
        msg = f"CLIP-AD runs in {STAGES} stages; '{name}' has {layers} blocks, which is no multiple of {STAGES}."
        raise ValueError(msg)
    if vision["width"] % vision["head_width"]:
        msg = f"vision_cfg.width of '{name}' has to be a multiple of its head_width {vision['head_width']}; "
        raise ValueError(msg + f"got {vision['width']}.")
    if not is_whole(size) or size % vision["patch_size"]:
        patch = vision["patch_size"]
        msg = f"The image size has to be one positive multiple of the patch size {patch} of '{name}'; got {size}."
        raise ValueError(msg)
    if text.get("hf_model_name"):
        return
    text = {**_TEXT_DEFAULTS, **text}
    for key in _TEXT_DEFAULTS:
        _whole(text[key], f"text_cfg.{key}", name)
    if text["width"] % text["heads"]:
        msg = f"text_cfg.width of '{name}' has to be a multiple of its {text['heads']} heads; got {text['width']}."
        raise ValueError(msg)


def channels(preprocess: Mapping[str, Any], key: str, default: tuple[float, ...], name: str) -> tuple[float, ...]:
    """``mean`` or ``std`` of a pre-processing, one finite number per colour channel; a ``std`` is above 0.

    Raises:
        ValueError: If it is anything else.
    """
    given = preprocess.get(key)
    if given is None:
        return default
    numbers = tuple(given) if isinstance(given, (list, tuple)) else (given,) * len(default)
    if len(numbers) != len(default) or not all(is_number(one) and (one > 0 or key != "std") for one in numbers):
        positive = " above 0" if key == "std" else ""
        msg = f"The `{key}` of '{name}' has to be {len(default)} numbers{positive}, one per channel; got {given!r}."
        raise ValueError(msg)
    return tuple(float(one) for one in numbers)


def unsupported(name: str, what: str) -> ValueError:
    """The error for an image tower that CLIP-AD cannot run on."""
    return ValueError(
        f"CLIP-AD cannot run on '{name}', whose image tower is {what}. Supported are open_clip's vision transformers "
        "made of ResidualAttentionBlocks with a CLS token, such as ViT-B-16-plus-240, ViT-B-16, ViT-L-14 and ViT-H-14."
    )


def _part(config: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    part = config.get(key)
    if not isinstance(part, dict):
        msg = f"`{key}` of the model configuration '{name}' has to be an object of settings; got {part!r}."
        raise ValueError(msg)
    return part


def _whole(value: object, key: str, name: str) -> None:
    if not is_whole(value):
        msg = f"{key} of the model configuration '{name}' has to be a positive whole number; got {value!r}."
        raise ValueError(msg)
