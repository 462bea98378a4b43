"""Cache of the frozen CLIP's patch features, filled in the first epoch."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

logger = logging.getLogger(__name__)
CacheKind = Literal["none", "memory", "disk"]
CACHE_KINDS: tuple[str, ...] = get_args(CacheKind)


class FeatureCache:
    """Features by picture; what was computed once is never computed again while this object lives.

    Args:
        kind: ``none``, ``memory`` or ``disk``: a temporary folder that goes with this object.
    """

    def __init__(self, kind: CacheKind) -> None:
        self._store: MutableMapping[str, Tensor] | None = None
        if kind == "memory":
            self._store = {}
        elif kind == "disk":
            self._store = _DiskStore()

    def get(self, names: Sequence[str], compute: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Features of a batch: tensors (B, ...), one per stage.

        Args:
            names: What tells the pictures apart (B,).
            compute: Computes the features of the whole batch.
        """
        if self._store is None:
            return compute()
        if not all(name in self._store for name in names):
            features = torch.stack(compute(), dim=1)
            for name, feature in zip(names, features.cpu(), strict=True):
                self._store[name] = feature.clone()
            return list(features.unbind(dim=1))
        return list(torch.stack([self._store[name] for name in names], dim=1))


class _DiskStore(dict[str, Tensor]):
    """A dictionary of tensors that lie in a temporary folder."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="clipad-features-")
        self._paths: dict[str, Path] = {}
        logger.info("Patch features are kept in %s while training.", self._folder.name)

    def __contains__(self, name: object) -> bool:
        return name in self._paths

    def __getitem__(self, name: str) -> Tensor:
        return load_file(self._paths[name])["features"]

    def __setitem__(self, name: str, value: Tensor) -> None:
        path = Path(self._folder.name) / f"{len(self._paths)}.safetensors"
        save_file({"features": value.contiguous()}, path)
        self._paths[name] = path
