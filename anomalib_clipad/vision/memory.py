"""The memory of a few-shot model: patch tokens of normal images, and how far these are from each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from .dual_path import STAGES
from .joining import LEAST, spread

NUMBERS = ("farthest", "aspect", "spread", "text_peak", "text_spread")
"""Scalars of a memory besides its tokens."""
_UNIT = 1e-5
"""How far from 1 the length of a unit vector may be, by rounding."""


class Memory(nn.Module):
    """What a few-shot model has seen of normal images.

    Only directions are compared, so it keeps unit vectors, in float32: a model that was saved and loaded gives the same
    scores to the last bit. At 240 pixels an image takes 3.2 MB with ViT-B-16-plus-240.

    Args:
        tokens: Patch tokens of all normal images, stage by stage (4, M, width), or several sets of each; where images
            are cut into tiles, place by place (1 + T, 4, M, width), see ``Tiles``.
        farthest: Largest few-shot distance of a normal image's map to the others, summed over stages: a scalar.
        aspect: Width over height of the normal images as they were read; 0 if that is not known.
        spread: Spread of the largest distances in the normal images' maps; 0 if there are too few.
        text_peak: Largest value of the text's maps of the normal images; 0 if that is not known.
        text_spread: Spread of the largest values of these maps; 0 if there are too few, or it is not known.

    Attributes:
        tokens: Unit vectors in the shape given; part of the state, as all numbers are.
        places: Views of each image.

    Raises:
        ValueError: If the tokens are of another shape, or one of them is not a number.
    """

    tokens: Tensor
    farthest: Tensor
    aspect: Tensor
    spread: Tensor
    text_peak: Tensor
    text_spread: Tensor

    def __init__(
        self,
        tokens: Tensor,
        farthest: Tensor | float,
        aspect: Tensor | float = 0.0,
        spread: Tensor | float = 0.0,
        text_peak: Tensor | float = 0.0,
        text_spread: Tensor | float = 0.0,
    ) -> None:
        super().__init__()
        if tokens.ndim not in {3, 4} or tokens.shape[-3] % STAGES or not tokens.shape[-2]:
            msg = f"A memory holds patch tokens of {STAGES} stages, ({STAGES}, M, width); got {tuple(tokens.shape)}."
            raise ValueError(msg)
        self.places = 1 if tokens.ndim == 3 else len(tokens)
        tokens = tokens.detach().clone().float()
        if (tokens.norm(dim=-1) - 1).abs().max() > _UNIT:  # unit vectors, as of a file, keep every bit
            tokens = normalize(tokens, dim=-1)
        self.register_buffer("tokens", tokens)
        for name, value in zip(NUMBERS, (farthest, aspect, spread, text_peak, text_spread), strict=True):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32).detach().clone())
        if not all(values.isfinite().all() for values in self.buffers()):
            msg = "The memory is damaged: it holds values that are no numbers (NaN or infinite). Fill it anew."
            raise ValueError(msg)

    @property
    def knows_spreads(self) -> bool:
        """Whether the spreads of both parts are known."""
        return bool(self.spread > 0) and bool(self.text_spread > 0)

    def learn_text(self, peaks: Tensor) -> None:
        """Take over the largest values (k,) of the text's maps of the normal images."""
        self.text_peak.copy_(peaks.max())
        self.text_spread.copy_(spread(peaks) if len(peaks) >= LEAST else torch.zeros(()))
