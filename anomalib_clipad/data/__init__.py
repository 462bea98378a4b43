"""Data modules for anomalib; loaded when they are first used (PEP 562)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auxiliary import Auxiliary
    from .generated_parts import GeneratedParts
    from .medical import ISIC2016, BrainMRI, CVCClinicDB, HeadCT

__all__ = ["ISIC2016", "Auxiliary", "BrainMRI", "CVCClinicDB", "GeneratedParts", "HeadCT"]

_HOMES = {
    "Auxiliary": "auxiliary",
    "GeneratedParts": "generated_parts",
    **dict.fromkeys(("BrainMRI", "CVCClinicDB", "HeadCT", "ISIC2016"), "medical"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
