"""CLIP backbones: where they come from and what they have to be. Only loading one imports open_clip (PEP 562)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .backbone import Backbone

if TYPE_CHECKING:
    from .loading import load_backbone

__all__ = ["Backbone", "load_backbone"]


def __getattr__(name: str) -> Any:
    if name != "load_backbone":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from .loading import load_backbone

    return load_backbone
