"""Models by name that were built before: read again in torch alone, without what open_clip imports.

The first time a backbone is loaded for a class, a small file in the cache notes where its weights are, what makes its
image tower, the tower's fingerprint and the text features. From then on the tower is built from the weights file, and
counts only if its fingerprint is still that one. What gave a warning is not noted: the warning belongs to every run.
"""

from __future__ import annotations

import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anomalib_clipad.backbones.backbone import BUNDLED, Backbone
from anomalib_clipad.backbones.tower import Tower
from anomalib_clipad.digest import digest
from anomalib_clipad.settings import Settings
from anomalib_clipad.storage import atomic_folder, cache_directory, is_safetensors
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.transformer import activations_and_heads

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer

logger = logging.getLogger(__name__)


class Note(NamedTuple):
    """What is noted of a backbone.

    Attributes:
        weights: Its weights file.
        size: Bytes of the file.
        changed: When it was last changed, in nanoseconds.
        heads: Attention heads of the image tower.
        quick_gelu: Whether its activation is QuickGELU.
        eps: Of its layer norms.
        traits: What the fingerprint says besides weights.
        fingerprint: Digest of the tower.
        image_size: Height and width of its input.
        mean: Mean of the input's normalisation per channel.
        std: Standard deviation of it.
        text: Digest of the text features.
    """

    weights: str
    size: int
    changed: int
    heads: int
    quick_gelu: bool
    eps: float
    traits: str
    fingerprint: str
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    text: str


class _Textless(nn.Module):
    """A CLIP of which only the image tower is at hand."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual


def recall(settings: Settings, class_name: str | None) -> tuple[ClipADModel, Backbone] | None:
    """The model of these settings and this class, if it was noted and its weights are what they were.

    It cannot encode other prompts. Of SDP in float32 alone.
    """
    path = _path(settings, class_name)
    if settings.precision != "float32" or settings.variant != "sdp" or not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            note = Note(**json.loads((file.metadata() or {})["note"]))
            text = file.get_tensor("text_features")
        weights = Path(note.weights)
        state = weights.stat()
        if (state.st_size, state.st_mtime_ns) != (note.size, note.changed) or digest({"text": text}) != note.text:
            return None
        if settings.text_weight and not text.isfinite().all():
            return None
        visual = _read_tower(weights, note)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        logger.info("%s does not help to start: %s", path, error)
        return None
    if visual is None:
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
    model.text_features.copy_(text)
    model.class_name = class_name if settings.text_weight else None
    return model, backbone


def keep(settings: Settings, class_name: str | None, model: ClipADModel, backbone: Backbone) -> None:
    """Note a model that was just built, if it can be built so again."""
    visual = cast("VisionTransformer", backbone.clip.visual)
    norms = {part.eps for part in visual.modules() if isinstance(part, nn.LayerNorm)}
    heads = {part.num_heads for part in visual.modules() if isinstance(part, nn.MultiheadAttention)}
    if backbone.weights is None or not _named(settings) or len(norms) != 1 or len(heads) != 1:
        return
    weights, text, traits = backbone.weights.absolute(), model.text_features.cpu(), activations_and_heads(visual)
    state = weights.stat()
    note = Note(
        weights=str(weights),
        size=state.st_size,
        changed=state.st_mtime_ns,
        heads=heads.pop(),
        quick_gelu="QuickGELU" in traits,
        eps=norms.pop(),
        traits=traits,
        fingerprint=backbone.fingerprint,
        image_size=backbone.image_size,
        mean=backbone.mean,
        std=backbone.std,
        text=digest({"text": text}),
    )
    path = _path(settings, class_name)
    try:
        if _read_tower(weights, note) is None:
            return
        with atomic_folder(path.parent) as folder:
            save_file({"text_features": text}, folder / path.name, metadata={"note": json.dumps(note._asdict())})
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        logger.info("%s is not noted for a quick start: %s", settings.backbone, error)


def _named(settings: Settings) -> bool:
    """Whether names tell all but the weights: a configuration in a file, or beside one, may change unnoticed."""
    if settings.backbone == BUNDLED:
        return True
    by_file = ":" in settings.backbone or settings.backbone.endswith(".json")
    return not by_file and not Path(settings.pretrained or "").is_file()


def _path(settings: Settings, class_name: str | None) -> Path:
    """Where the note is: its name is made of all settings, so that none can be forgotten."""
    details = (
        json.dumps(settings.as_dict(), sort_keys=True),
        class_name,
        version("anomalib-clipad"),
        version("open_clip_torch"),
    )
    return cache_directory() / "start" / f"{digest({}, *details)}.safetensors"


def _read_tower(path: Path, note: Note) -> Tower | None:
    """The image tower in a file, if it is the one that was noted."""
    saved: Any = load_file(path) if is_safetensors(path) else torch.load(path, "cpu", weights_only=True, mmap=True)
    state: dict[str, Tensor] = saved.get("state_dict", saved)
    named = {name.removeprefix("module."): value for name, value in state.items()}
    visual = {
        name.removeprefix("visual."): value.float() for name, value in named.items() if name.startswith("visual.")
    }
    if digest(visual, note.traits, tuple(note.mean), tuple(note.std)) != note.fingerprint:
        return None
    return Tower.from_weights(visual, note.heads, note.quick_gelu, note.eps)


def _no_tokenizer(_: Any) -> Tensor:
    msg = "This model was started without its text tower."
    raise RuntimeError(msg)
