"""Prompt embeddings kept on disk, keyed by everything they depend on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from open_clip import CLIP
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from anomalib_clipad.digest import digest
from anomalib_clipad.storage import cache_directory, unfinished

logger = logging.getLogger(__name__)


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
        known = self._read(path, len(tokens))
        if known is not None:
            logger.info("Prompt embeddings found in %s.", path)
            return known.to(next(clip.parameters()).device)
        embeddings = compute()
        self._write(path, embeddings)
        return embeddings

    @staticmethod
    def key(clip: CLIP, tokens: Tensor) -> str:
        """Everything the embeddings depend on: text weights, tokens (prompts, tokenizer, context), code."""
        weights = {name: value for name, value in clip.state_dict().items() if not name.startswith("visual.")}
        embedding = next((name for name in weights if name.endswith("token_embedding.weight")), None)
        if embedding:  # the rows of tokens that do not occur are most of the tower, and idle
            used = tokens.unique().to(weights[embedding].device)
            weights[embedding] = weights[embedding][used]
        inputs = {"tokens": tokens.to(torch.int32)}
        code = f"{version('anomalib-clipad')} {version('open_clip_torch')} {type(clip).__name__}"
        activation = [type(module).__name__ for module in clip.modules() if "GELU" in type(module).__name__][-1:]
        return hashlib.blake2b(
            f"{digest(weights)} {digest(inputs)} {code} {activation}".encode(), digest_size=20
        ).hexdigest()

    @staticmethod
    def _read(path: Path, count: int) -> Tensor | None:
        if not path.exists():
            return None
        try:
            embeddings = load_file(path)["embeddings"]
        except (OSError, SafetensorError, KeyError) as error:
            logger.warning("Ignoring the unreadable cache entry %s: %s", path, error)
            return None
        return embeddings if embeddings.ndim == 2 and len(embeddings) == count else None

    @staticmethod
    def _write(path: Path, embeddings: Tensor) -> None:
        try:
            with unfinished(path.parent) as folder:
                save_file({"embeddings": embeddings.cpu().contiguous()}, folder / path.name)
        except OSError as error:
            logger.warning("Prompt embeddings are not kept, %s cannot be written: %s", path, error)
