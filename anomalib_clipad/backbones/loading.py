"""Build a backbone from its source and check that CLIP-AD can run on it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import open_clip
import torch
from open_clip import CLIP, factory
from open_clip.factory import load_state_dict
from open_clip.model import resize_pos_embed
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from safetensors.torch import load_file
from torch import Tensor, nn

from anomalib_clipad.digest import digest
from anomalib_clipad.storage import is_safetensors
from anomalib_clipad.text.encoder import Tokenizer
from anomalib_clipad.transformer import activations_and_heads

from .backbone import Backbone
from .configuration import check_config, unsupported
from .sources import DEFAULT_TAG, Source, built_in_config, find_source

_SIZES_OF_OPENAI = ("input_resolution", "context_length", "vocab_size")


def load_backbone(
    backbone: str = "ViT-B-16-plus-240",
    pretrained: str | None = DEFAULT_TAG,
    image_size: int | None = None,
) -> Backbone:
    """Load a CLIP through open_clip.

    Args:
        backbone: open_clip model name, ``hf-hub:``/``local-dir:`` name, ``clipad-mini``, or the path of an open_clip
            model configuration (``.json``).
        pretrained: open_clip tag, path of a weights file, or ``tag:path`` for the file of a tag that was downloaded by
            hand: a tag says which activation and normalisation belong to the weights. ``None`` for random weights
            (always the same), with a warning.
        image_size: Height and width of the input in pixels, a multiple of the patch size; position embeddings are
            interpolated. ``None`` takes the backbone's own.

    Raises:
        ValueError: If a name or file is unknown, CLIP-AD cannot run on the model, or weights do not fit it.
        WeightsUnavailableError: If weights cannot be downloaded.
    """
    built_in = built_in_config(backbone)
    if built_in is not None:  # before any download
        check_config(built_in, backbone, image_size)
    source = find_source(backbone, pretrained)
    check_config(source.config, source.name, image_size)
    clip, tokenizer = _build(source, image_size)
    check_tower(clip.visual, source.name)
    if source.weights is None:
        warnings.warn(
            f"The backbone '{source.name}' has RANDOM weights (pretrained is null): its scores and maps mean nothing.",
            stacklevel=2,
        )
    positions = None if source.weights is None else _load_weights(clip, source.weights, source.name)
    visual = clip.eval().requires_grad_(False).visual
    traits = activations_and_heads(visual)
    return Backbone(
        name=backbone,
        pretrained=pretrained,
        clip=clip,
        tokenizer=tokenizer,
        image_size=visual.image_size[0],
        fingerprint=digest(visual.state_dict(), traits, source.mean, source.std),
        mean=source.mean,
        std=source.std,
        weights=source.weights,
        positions=positions,
    )


def check_tower(visual: nn.Module, name: str) -> None:
    """Check that the dual path can run on an image tower.

    Raises:
        ValueError: If it is not a vision transformer of residual attention blocks that pools by its CLS token.
    """
    if not isinstance(visual, VisionTransformer):
        raise unsupported(name, f"a {type(visual).__name__}")
    others = {type(block).__name__ for block in visual.transformer.resblocks} - {ResidualAttentionBlock.__name__}
    if others:
        raise unsupported(name, f"a transformer of {', '.join(sorted(others))}s")
    if visual.attn_pool is not None or visual.pool_type != "tok":
        raise unsupported(name, "a transformer that does not pool by its CLS token")


def _build(source: Source, image_size: int | None) -> tuple[CLIP, Tokenizer]:
    """The architecture with reproducible random weights, and its tokenizer."""
    with _registered(source.config) as name, torch.random.fork_rng(devices=[]), _without_remarks_of_open_clip():
        torch.manual_seed(0)
        try:
            clip = open_clip.create_model(name, force_image_size=image_size, pretrained_hf=False)
            return clip, open_clip.get_tokenizer(name)
        except Exception as error:  # whatever its constructors run into
            msg = (
                f"The model configuration of '{source.name}' is not one of open_clip, which cannot build it: "
                f"{type(error).__name__}: {error}"
            )
            raise ValueError(msg) from error


@contextmanager
def _registered(config: dict[str, Any]) -> Iterator[str]:
    """A name for a configuration while it is built: open_clip builds by name only, and forgets none by itself."""
    name = f"clipad-{uuid4().hex}"
    factory._MODEL_CONFIGS[name] = config
    try:
        yield name
    finally:
        del factory._MODEL_CONFIGS[name]


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


def _load_weights(clip: CLIP, path: Path, name: str) -> Tensor | None:
    """Load weights; the file's own positions, if they had to be resized."""
    try:
        state = _read_weights(path)
        # open_clip cannot interpolate half-precision positions.
        state = {key: value.float() for key, value in state.items() if not key.endswith(".position_ids")}
        own = state.get("visual.positional_embedding")
        resize_pos_embed(state, clip)
        clip.load_state_dict(state)
        return None if own is state.get("visual.positional_embedding") else own
    except Exception as error:  # pickle, zip, safetensors and state-dict readers each raise their own
        reason = str(error).strip().splitlines()
        msg = (
            f"The weights file {path} does not fit the backbone '{name}', or is damaged: "
            f"{' '.join(line.strip() for line in reason[:3])} Check that it is the file of this architecture, "
            "and download it again if it is."
        )
        raise ValueError(msg) from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Weights by name, from safetensors, a checkpoint of torch, or a TorchScript archive such as OpenAI's own files."""
    if is_safetensors(path):
        return load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        try:
            return load_state_dict(str(path))
        except RuntimeError as error:
            if "TorchScript" not in str(error):
                raise
        state = torch.jit.load(path, map_location="cpu").state_dict()
    return {key: value for key, value in state.items() if key not in _SIZES_OF_OPENAI}
