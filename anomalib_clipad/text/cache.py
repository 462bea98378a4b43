"""Prompt embeddings kept on disk, keyed by everything they depend on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from anomalib_clipad.digest import digest
from anomalib_clipad.storage import atomic_folder, cache_directory
from anomalib_clipad.transformer import activations_and_heads

if TYPE_CHECKING:
    from open_clip import CLIP

logger = logging.getLogger(__name__)
_BACKENDS = (torch.backends.mkldnn, torch.backends.cuda)


class EmbeddingCache:
    """Embeddings on disk. Trouble with the directory costs time, never a result.

    Args:
        directory: Where the files are; created when first written.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = (directory or cache_directory()) / "text"

    def get(self, clip: CLIP, tokens: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """The embeddings (n, D) of these tokens (n, context) by this model, computed only if they are new."""
        path = self.directory / f"{self.key(clip, tokens)}.safetensors"
        return self._kept(path, len(tokens), compute).to(next(clip.parameters()).device)

    def vector(
        self, embeddings: Tensor, method: str, options: Mapping[str, float], select: Callable[[], Tensor]
    ) -> Tensor:
        """The representative vector (D,) of embeddings (n, D), selected only if it is new: clustering loads slowly."""
        how = f"{method} {sorted(options.items())} {version('anomalib-clipad')} {version('scikit-learn')}"
        path = self.directory / f"{digest({'embeddings': embeddings}, how)}.safetensors"
        return self._kept(path, 1, lambda: select()[None])[0].to(embeddings.device)

    def _kept(self, path: Path, count: int, compute: Callable[[], Tensor]) -> Tensor:
        known = self._read(path, count)
        if known is not None:
            logger.info("Prompt embeddings found in %s.", path)
            return known
        computed = compute()
        self._write(path, computed)
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
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return digest(
            {**weights, "tokens": tokens.to(torch.int32)},
            f"autocast {autocast}, float32 as {[backend.matmul.fp32_precision for backend in _BACKENDS]}",
            *(activations_and_heads(part) for name, part in clip.named_children() if name != "visual"),
            f"{version('anomalib-clipad')} {version('open_clip_torch')} {type(clip).__name__}",
        )

    @staticmethod
    def _read(path: Path, count: int) -> Tensor | None:
        try:
            if not path.exists():
                return None
            with safe_open(path, framework="pt") as entry:
                embeddings, written = entry.get_tensor("embeddings"), (entry.metadata() or {}).get("digest")
        except (OSError, SafetensorError) as error:
            logger.warning("Ignoring the unreadable cache entry %s: %s", path, error)
            return None
        whole = written == digest({"embeddings": embeddings}) and bool(embeddings.isfinite().all())
        if len(embeddings) != count or not whole:
            logger.warning("Ignoring the cache entry %s: it is not what was written there, or holds no numbers.", path)
            return None
        return embeddings

    @staticmethod
    def _write(path: Path, embeddings: Tensor) -> None:
        embeddings = embeddings.cpu().contiguous()
        if not embeddings.isfinite().all():  # a fault of now, which is not to last
            return
        try:
            with atomic_folder(path.parent) as folder:
                metadata = {"digest": digest({"embeddings": embeddings})}
                save_file({"embeddings": embeddings}, folder / path.name, metadata=metadata)
        except (OSError, SafetensorError) as error:
            logger.warning("Prompt embeddings are not kept, %s cannot be written: %s", path, error)
