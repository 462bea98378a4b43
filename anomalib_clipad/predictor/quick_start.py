"""Models by name that were built before: read again in torch alone, without what open_clip imports.

The first time a backbone is loaded for a class, an entry of the cache notes where its weights are, the digest of all of
them, what makes its image tower, and the text features. From then on the tower is built from the weights file, if its
weights are all still those: another text tower would give other text features. What gave a warning is not noted: the
warning belongs to every run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from anomalib_clipad.backbones.backbone import BUNDLED, Backbone
from anomalib_clipad.backbones.tower import Tower
from anomalib_clipad.cache import Cache, Entry
from anomalib_clipad.digest import digest
from anomalib_clipad.settings import Settings
from anomalib_clipad.storage import is_safetensors
from anomalib_clipad.text.cache import arithmetic
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.transformer import activations_and_heads

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer

logger = logging.getLogger(__name__)


class Note(NamedTuple):
    """What is noted of a backbone.

    Attributes:
        weights: Its weights file.
        content: Digest of all weights in it.
        heads: Attention heads of the image tower.
        quick_gelu: Whether its activation is QuickGELU.
        eps: Of its layer norms.
        fingerprint: Digest of the tower.
        image_size: Height and width of its input.
        mean: Mean of the input's normalisation per channel.
        std: Standard deviation of it.
    """

    weights: str
    content: str
    heads: int
    quick_gelu: bool
    eps: float
    fingerprint: str
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class _Textless(nn.Module):
    """A CLIP of which only the image tower is at hand."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual


def recall(settings: Settings, class_name: str | None) -> tuple[ClipADModel, Backbone] | None:
    """The model of these settings and this class, if it was noted and its weights are what they were.

    It cannot encode other prompts. Of SDP in float32 alone.
    """
    if settings.precision != "float32" or settings.variant != "sdp":
        return None
    cache, key = Cache("start"), _key(settings, class_name)
    entry = cache.get(key)
    if entry is None:
        return None
    try:
        note = Note(**json.loads(entry.note))
        weights = Path(note.weights)
        state = _read_weights(weights)
        if digest(state) != note.content:
            return None
        visual = _tower(state, note)
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        logger.info("%s does not help to start: %s", cache.path(key), error)
        return None
    parts: dict[str, Any] = {"mean": tuple(note.mean), "std": tuple(note.std), "weights": weights}
    backbone = Backbone(
        settings.backbone,
        settings.pretrained,
        cast("Any", _Textless(visual)),
        _no_tokenizer,
        note.image_size,
        note.fingerprint,
        **parts,
    )
    model = ClipADModel(backbone, settings)
    if settings.uses_text:
        model.text_features.copy_(entry.tensors["text_features"])
        model.class_name = class_name
    return model, backbone


def keep(settings: Settings, class_name: str | None, model: ClipADModel, backbone: Backbone) -> None:
    """Note a model that was just built, if it can be built so again."""
    visual = cast("VisionTransformer", backbone.clip.visual)
    norms = {part.eps for part in visual.modules() if isinstance(part, nn.LayerNorm)}
    heads = {part.num_heads for part in visual.modules() if isinstance(part, nn.MultiheadAttention)}
    if backbone.weights is None or not _named(settings) or len(norms) != 1 or len(heads) != 1:
        return
    weights, traits = backbone.weights.absolute(), activations_and_heads(visual)
    try:
        state = _read_weights(weights)
        note = Note(
            weights=str(weights),
            content=digest(state),
            heads=heads.pop(),
            quick_gelu="QuickGELU" in traits,
            eps=norms.pop(),
            fingerprint=backbone.fingerprint,
            image_size=backbone.image_size,
            mean=backbone.mean,
            std=backbone.std,
        )
        if digest(_visual(state), traits, backbone.mean, backbone.std) != backbone.fingerprint:
            return
        _tower(state, note)
    except (OSError, SafetensorError, AttributeError, KeyError, ValueError, RuntimeError) as error:
        logger.info("%s is not noted for a quick start: %s", settings.backbone, error)
        return
    features = {"text_features": model.text_features} if settings.uses_text else {}
    Cache("start").put(_key(settings, class_name), Entry(features, json.dumps(note._asdict())))


def _named(settings: Settings) -> bool:
    """Whether names tell all but the weights: a configuration in a file, or beside one, may change unnoticed."""
    if settings.backbone == BUNDLED:
        return True
    by_file = ":" in settings.backbone or settings.backbone.endswith(".json")
    return not by_file and not Path(settings.pretrained or "").is_file()


def _key(settings: Settings, class_name: str | None) -> str:
    """Made of all settings, so that none can be forgotten, and of what text features depend on besides weights."""
    details = (
        json.dumps(settings.as_dict(), sort_keys=True),
        class_name,
        version("anomalib-clipad"),
        version("open_clip_torch"),
        version("scikit-learn"),
        arithmetic("cpu"),
    )
    return digest({}, *details)


def _read_weights(path: Path) -> dict[str, Tensor]:
    """All weights in a file, by name."""
    saved: Any = load_file(path) if is_safetensors(path) else torch.load(path, "cpu", weights_only=True, mmap=True)
    state: dict[str, Tensor] = saved.get("state_dict", saved)
    return {name.removeprefix("module."): value for name, value in state.items()}


def _visual(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower's weights among them."""
    return {name.removeprefix("visual."): value.float() for name, value in state.items() if name.startswith("visual.")}


def _tower(state: Mapping[str, Tensor], note: Note) -> Tower:
    return Tower.from_weights(_visual(state), note.heads, note.quick_gelu, note.eps)


def _no_tokenizer(_: Any) -> Tensor:
    msg = "This model was started without its text tower."
    raise RuntimeError(msg)
