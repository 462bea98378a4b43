"""A CLIP that CLIP-AD can run on, and that there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from open_clip import CLIP
    from torch import Tensor

    from anomalib_clipad.text.encoder import Tokenizer


BUNDLED = "clipad-mini"
"""The CLIP that is part of this package."""


class WeightsUnavailableError(RuntimeError):
    """Weights could not be downloaded and are not in the cache."""


@dataclass(frozen=True)
class Backbone:
    """A CLIP that CLIP-AD can run on.

    Attributes:
        name: What the user called it.
        pretrained: What the user called its weights; ``None`` for random ones.
        clip: open_clip model, unmodified and frozen.
        tokenizer: The model's tokenizer.
        image_size: Height and width of its input in pixels.
        fingerprint: Digest of the image tower as it was loaded: weights, activation, heads, and normalisation of its
            input.
        mean: Mean of its input's normalisation per channel, for values in [0, 1].
        std: Standard deviation of its input's normalisation per channel.
        weights: The file they were read from; ``None`` for random ones.
        positions: The weights' own position embeddings of the image tower (1 + n * n, width), where open_clip has
            resized them for this size.
    """

    name: str
    pretrained: str | None
    clip: CLIP
    tokenizer: Tokenizer
    image_size: int
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: Path | None = None
    positions: Tensor | None = None

    def settings(self) -> dict[str, Any]:
        """The settings that name it."""
        return {"backbone": self.name, "pretrained": self.pretrained, "image_size": self.image_size}
