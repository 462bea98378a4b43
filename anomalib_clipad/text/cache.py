"""Prompt embeddings kept on disk, keyed by everything they depend on."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from open_clip import CLIP
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from anomalib_clipad.storage import cache_directory

logger = logging.getLogger(__name__)


def digest(tensors: dict[str, Tensor]) -> str:
    """Fingerprint of named tensors at the speed of memory: every value counts, through sums over its bits."""
    state = hashlib.blake2b(digest_size=20)
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous().view(-1)
        bits = flat.view(torch.int32) if flat.element_size() == 4 else flat.to(torch.float32).view(torch.int32)
        rows = bits[: len(bits) // 64 * 64].view(-1, 64)
        sums = torch.cat([rows.sum(dim=0), rows[::61].sum(dim=0), bits[:: max(len(bits) // 256, 1)]])
        state.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}{int(bits.sum())}".encode())
        state.update(sums.numpy().tobytes())
    return state.hexdigest()


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
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                partial = Path(folder) / path.name
                save_file({"embeddings": embeddings.cpu().contiguous()}, partial)
                partial.replace(path)
        except OSError as error:
            logger.warning("Prompt embeddings are not kept, %s cannot be written: %s", path, error)
