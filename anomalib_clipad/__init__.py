"""CLIP-AD for anomalib: zero-shot anomaly detection with representative vectors and a staged dual path.

Importing this package imports nothing heavy: public names are loaded when they are first used (PEP 562).
"""

from __future__ import annotations

TYPE_CHECKING = False  # what type checkers take for true; `typing` itself is not imported for it
if TYPE_CHECKING:
    from typing import Any

    from .backbones import load_backbone
    from .inspection.finding import Finding
    from .inspection.inspector import Inspector
    from .lightning_model import ClipAD
    from .torch_model import ClipADModel

__all__ = ["ClipAD", "ClipADModel", "Finding", "Inspector", "load_backbone"]

_HOMES = {
    "ClipAD": "lightning_model",
    "ClipADModel": "torch_model",
    "Finding": "inspection.finding",
    "Inspector": "inspection.inspector",
    "load_backbone": "backbones",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
