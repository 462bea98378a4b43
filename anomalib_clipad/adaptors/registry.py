"""All adaptors by the name of their variant."""

from __future__ import annotations

from .aa_clip import AAClip
from .af_clip import AFClip
from .base import Adaptor, Shape
from .sdp_plus import SDPPlus

ADAPTORS: dict[str, type[Adaptor]] = {"sdp_plus": SDPPlus, "af_clip": AFClip, "aa_clip": AAClip}
"""What each variant but ``sdp``, which has nothing to train, is made of."""


def new_adaptor(variant: str, shape: Shape) -> Adaptor | None:
    """Layers of a variant, not trained yet; ``None`` where it has none."""
    kind = ADAPTORS.get(variant)
    return None if kind is None else kind.of(shape)
