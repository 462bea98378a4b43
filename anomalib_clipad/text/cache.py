"""Prompt embeddings kept on disk, keyed by everything they depend on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anomalib_clipad.cache import Cache, Entry
from anomalib_clipad.digest import digest
from anomalib_clipad.transformer import activations_and_heads

if TYPE_CHECKING:
    from open_clip import CLIP

logger = logging.getLogger(__name__)
_BACKENDS = (torch.backends.mkldnn, torch.backends.cuda)


def arithmetic(device: str) -> str:
    """The number formats that a kind of device computes in now, beside those of the weights."""
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return f"autocast {autocast}, float32 as {[backend.matmul.fp32_precision for backend in _BACKENDS]}"


class EmbeddingCache:
    """Embeddings on disk. Trouble with the directory costs time, never a result.

    Args:
        directory: The cache; by default that of the user.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._cache = Cache("text", directory)

    def get(self, clip: CLIP, tokens: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """The embeddings (n, D) of these tokens (n, context) by this model, computed only if they are new."""
        kept = self._kept(self.key(clip, tokens), len(tokens), compute)
        return kept.to(next(clip.parameters()).device)

    def vector(
        self, embeddings: Tensor, method: str, options: Mapping[str, float], select: Callable[[], Tensor]
    ) -> Tensor:
        """The representative vector (D,) of embeddings (n, D), selected only if it is new: clustering loads slowly."""
        how = f"{method} {sorted(options.items())} {version('anomalib-clipad')} {version('scikit-learn')}"
        key = digest({"embeddings": embeddings}, how)
        return self._kept(key, 1, lambda: select()[None])[0].to(embeddings.device)

    def _kept(self, key: str, count: int, compute: Callable[[], Tensor]) -> Tensor:
        entry = self._cache.get(key)
        known = None if entry is None else entry.tensors.get("embeddings")
        if known is not None and known.ndim == 2 and len(known) == count:
            logger.info("Prompt embeddings found in %s.", self._cache.path(key))
            return known
        computed = compute()
        self._cache.put(key, Entry({"embeddings": computed}))
        return computed

    @staticmethod
    def key(clip: CLIP, tokens: Tensor) -> str:
        """Everything the embeddings depend on: text tower, tokens (prompts, tokenizer, context), precision, code."""
        weights = {name: value for name, value in clip.state_dict().items() if not name.startswith("visual.")}
        embedding = next((name for name in weights if name.endswith("token_embedding.weight")), None)
        if embedding:  # the rows of tokens that do not occur are most of the tower, and idle
            used = tokens.unique().to(weights[embedding].device)
            weights[embedding] = weights[embedding][used]
        device = next(clip.parameters()).device.type
        return digest(
            {**weights, "tokens": tokens.to(torch.int32)},
            arithmetic(device),
            *(activations_and_heads(part) for name, part in clip.named_children() if name != "visual"),
            f"{version('anomalib-clipad')} {version('open_clip_torch')} {type(clip).__name__}",
        )
