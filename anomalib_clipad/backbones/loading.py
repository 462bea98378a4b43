"""Build a backbone from its source and check that CLIP-AD can run on it."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import CLIP
from open_clip.factory import load_state_dict
from open_clip.model import resize_pos_embed
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from safetensors.torch import load_file
from torch import nn

from anomalib_clipad.digest import digest
from anomalib_clipad.text.encoder import Tokenizer
from anomalib_clipad.vision.dual_path import STAGES

from .sources import DEFAULT_TAG, Source, built_in_config, find_source


@dataclass(frozen=True)
class Backbone:
    """A CLIP that CLIP-AD can run on.

    Attributes:
        name: What the user called it.
        pretrained: What the user called its weights; ``None`` for random ones.
        clip: open_clip model, unmodified and frozen.
        tokenizer: The model's tokenizer.
        image_size: Height and width of its input in pixels.
        fingerprint: Digest of the image tower's weights as they were loaded.
        name: The model's name, as the user gave it.
        pretrained: The weights' tag or path, as the user gave it; ``None`` for random weights.
        mean: Mean of its input's normalisation per channel, for values in [0, 1].
        std: Standard deviation of its input's normalisation per channel.
    """

    name: str
    pretrained: str | None
    clip: CLIP
    tokenizer: Tokenizer
    image_size: int
    fingerprint: str
    name: str
    pretrained: str | None
    mean: tuple[float, ...] = open_clip.OPENAI_DATASET_MEAN
    std: tuple[float, ...] = open_clip.OPENAI_DATASET_STD

    def settings(self) -> dict[str, Any]:
        """The settings that name it."""
        return {"backbone": self.name, "pretrained": self.pretrained, "image_size": self.image_size}


def load_backbone(
    backbone: str = "ViT-B-16-plus-240",
    pretrained: str | None = DEFAULT_TAG,
    image_size: int | None = None,
) -> Backbone:
    """Load a CLIP through open_clip.

    Args:
        backbone: open_clip model name, ``hf-hub:``/``local-dir:`` name, ``clipad-mini``, or the path of an open_clip
            model configuration (``.json``).
        pretrained: open_clip tag or path of a weights file; ``None`` for random weights (always the same), with a
            warning.
        image_size: Height and width of the input in pixels, a multiple of the patch size; position embeddings are
            interpolated. ``None`` takes the backbone's own.

    Raises:
        ValueError: If a name or file is unknown, CLIP-AD cannot run on the model, or weights do not fit it.
        WeightsUnavailableError: If weights cannot be downloaded.
    """
    _check_config(built_in_config(backbone) or {}, backbone, image_size)  # before any download
    source = find_source(backbone, pretrained)
    _check_config(source.config, source.name, image_size)
    clip, tokenizer = _build(source, image_size)
    check_tower(clip.visual, source.name)
    if source.weights is None:
        warnings.warn(
            f"The backbone '{source.name}' has RANDOM weights (pretrained is null): its scores and maps mean nothing.",
            stacklevel=2,
        )
    else:
        _load_weights(clip, source.weights, source.name)
    preprocess = source.preprocess
    return Backbone(
        name=backbone,
        pretrained=pretrained,
        clip=clip.eval().requires_grad_(False),
        tokenizer=tokenizer,
        image_size=clip.visual.image_size[0],
        fingerprint=digest(clip.visual.state_dict()),
        name=backbone,
        pretrained=pretrained,
        mean=tuple(preprocess.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(preprocess.get("std") or open_clip.OPENAI_DATASET_STD),
    )


def _check_config(config: dict[str, Any], name: str, image_size: int | None) -> None:
    """What can be told from a configuration, before anything is downloaded or built."""
    vision = config.get("vision_cfg", {})
    if "timm_model_name" in vision:
        raise _unsupported(name, f"a timm tower ({vision['timm_model_name']})")
    layers, patch = vision.get("layers", STAGES), vision.get("patch_size", 16)
    if isinstance(layers, list):
        raise _unsupported(name, "a ResNet")
    if layers % STAGES:
        msg = f"CLIP-AD runs in {STAGES} stages; '{name}' has {layers} blocks, which is no multiple of {STAGES}."
        raise ValueError(msg)
    size = vision.get("image_size", patch) if image_size is None else image_size
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0 or not isinstance(patch, int) or size % patch:
        msg = f"The image size has to be one positive multiple of the patch size {patch} of '{name}'; got {size}."
        raise ValueError(msg)


def check_tower(visual: nn.Module, name: str) -> None:
    """Check that the dual path can run on an image tower.

    Raises:
        ValueError: If it is not a vision transformer of residual attention blocks that pools by its CLS token.
    """
    if not isinstance(visual, VisionTransformer):
        raise _unsupported(name, f"a {type(visual).__name__}")
    others = {type(block).__name__ for block in visual.transformer.resblocks} - {ResidualAttentionBlock.__name__}
    if others:
        raise _unsupported(name, f"a transformer of {', '.join(sorted(others))}s")
    if visual.attn_pool is not None or visual.pool_type != "tok":
        raise _unsupported(name, "a transformer that does not pool by its CLS token")


def _unsupported(name: str, what: str) -> ValueError:
    return ValueError(
        f"CLIP-AD cannot run on '{name}', whose image tower is {what}. Supported are open_clip's vision transformers "
        "made of ResidualAttentionBlocks with a CLS token, such as ViT-B-16-plus-240, ViT-B-16, ViT-L-14 and ViT-H-14."
    )


def _build(source: Source, image_size: int | None) -> tuple[CLIP, Tokenizer]:
    """The architecture with reproducible random weights, and its tokenizer."""
    text = json.dumps(source.config, sort_keys=True)
    name = f"clipad-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.json"
        path.write_text(text)
        open_clip.add_model_config(path)
    quick_gelu = bool(source.preprocess.get("quick_gelu"))
    with torch.random.fork_rng(devices=[]), _without_remarks_of_open_clip():
        torch.manual_seed(0)
        try:
            clip = open_clip.create_model(
                name,
                force_image_size=image_size,
                force_quick_gelu=quick_gelu,
                pretrained_hf=False,
            )
        except (TypeError, KeyError, AssertionError) as error:
            msg = f"The model configuration of '{source.name}' is not one of open_clip: {error}"
            raise ValueError(msg) from error
        return clip, open_clip.get_tokenizer(name)


@contextmanager
def _without_remarks_of_open_clip() -> Iterator[None]:
    """Hold back a dozen lines about a name that is internal, and about random weights: they are loaded next."""
    root = logging.getLogger()

    def keep(record: logging.LogRecord) -> bool:
        return "open_clip" not in Path(record.pathname).parts

    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


def _load_weights(clip: CLIP, path: Path, name: str) -> None:
    try:
        # open_clip reads safetensors only since 2.26, and cannot interpolate half-precision positions.
        state = load_file(path) if path.suffix == ".safetensors" else load_state_dict(str(path))
        state = {key: value.float() for key, value in state.items() if not key.endswith(".position_ids")}
        resize_pos_embed(state, clip)
        clip.load_state_dict(state)
    except Exception as error:  # pickle, zip, safetensors and state-dict readers each raise their own
        reason = str(error).strip().splitlines()
        msg = (
            f"The weights file {path} does not fit the backbone '{name}', or is damaged: "
            f"{' '.join(line.strip() for line in reason[:3])} Check that it is the file of this architecture, "
            "and download it again if it is."
        )
        raise ValueError(msg) from error
