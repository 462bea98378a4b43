"""AF-CLIP: one attention layer over aggregated tokens of four stages, and learnt tokens before the text's start.

The arithmetic, as its authors compute it (docs/algorithm.md, AF-CLIP).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, scaled_dot_product_attention

from anomalib_clipad.text.class_encoder import ClassEncoder, check_class_name
from anomalib_clipad.text.encoder import Tokenizer, causal_ends, causal_tokens, text_tower
from anomalib_clipad.vision.dual_path import STAGES, ordinary_path, project_features, project_tokens
from anomalib_clipad.vision.positions import resize_positions
from anomalib_clipad.vision.reader import Found, Read, View
from anomalib_clipad.vision.smoothing import patch_blur, smooth
from anomalib_clipad.vision.surgery import ScoreScale

from .af_clip_losses import abnormal_probabilities, af_clip_losses
from .base import Adaptor, Lesson, Shape, check_causal
from .pickled import read_module, read_plain
from .releases import Release
from .stages import Stage

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.transformer import TextTransformer, VisionTransformer

RADII = (1, 3, 5)
"""Patches along an axis of the neighbourhoods over which tokens are aggregated."""
STATES = ("without defect.", "with defect.")
TEXT_SHARE = 0.1
"""Weight of the text's part beside the comparison with normal images."""
_SIGMA = 4.0
_HEADS = 8
_HEAD_WIDTH = 64
_LEARNT = 12
_COMMIT = "bb7edec4128a76f29cb573cd3002538bf250b2fe"
_URL = f"https://raw.githubusercontent.com/Faustinaqq/AF-CLIP/{_COMMIT}/weight"
_TORCH = ("container.Sequential", "linear.Linear", "dropout.Dropout", "normalization.LayerNorm")
_CLASSES = (
    *(f"clip.adaptor.{name}" for name in ("Adaptor", "BasicTransformerBlock", "CrossAttention")),
    *(f"torch.nn.modules.{name}" for name in _TORCH),
)
_THEIRS = {
    "norm": "attention.norm",
    "q": "attention.attn.to_q",
    "k": "attention.attn.to_k",
    "v": "attention.attn.to_v",
    "out": "attention.attn.to_out.0",
}
"""What parts of the attention layer are called in the authors' files."""


class AggregatedAttention(nn.Module):
    """Self-attention over tokens that were aggregated first, one neighbourhood at a time, without a residual.

    Aggregation is a linear filter over patches, so it changes places with the projections to queries, keys and values
    and with the mean over the width that LayerNorm takes off: tokens are projected once for all neighbourhoods.

    Args:
        width: Width of the image tower.
        grid: Patches along an axis.
    """

    filters: Tensor

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        inner = _HEADS * _HEAD_WIDTH
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.out = nn.Linear(inner, width)
        filters = torch.stack([patch_blur(grid, radius, _SIGMA, "zeros") for radius in RADII])
        self.register_buffer("filters", filters, persistent=False)

    def aggregate(self, tokens: Tensor) -> Iterator[Tensor]:
        """Tokens (B, 1 + N, width), each patch the weighted mean of its neighbourhood, for each of ``RADII``.

        Beyond the border patches count as zero. The CLS token is left alone.
        """
        grid = self.filters.shape[-1]
        cls, patches = tokens[:, :1], tokens[:, 1:].unflatten(1, (grid, grid))  # (B, rows, columns, width)
        for radius, matrix in zip(RADII, self.filters, strict=True):
            if radius == 1:
                yield tokens
                continue
            rows = (matrix @ patches.flatten(2)).unflatten(2, (grid, -1))
            yield torch.cat([cls, (matrix @ rows).flatten(1, 2)], dim=1)

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """Attended tokens (B, 1 + N, width) for each of ``RADII``, of tokens (B, 1 + N, width), float32."""
        weight = torch.cat([self.q.weight, self.k.weight, self.v.weight])
        centred = tokens - tokens.mean(dim=-1, keepdim=True)
        projected, offset = linear(centred, weight * self.norm.weight), linear(self.norm.bias, weight)
        both = zip(self.aggregate(centred), self.aggregate(projected), strict=True)
        return [self._attend(linear_part, normed, offset) for normed, linear_part in both]

    def _attend(self, projected: Tensor, centred: Tensor, offset: Tensor) -> Tensor:
        """Attention over tokens whose LayerNorm lacks the division, (B, 1 + N, 3 inner) and (B, 1 + N, width)."""
        variance = centred.square().mean(dim=-1, keepdim=True)
        joined = projected * torch.rsqrt(variance + self.norm.eps) + offset
        query, key, value = joined.unflatten(-1, (3, _HEADS, _HEAD_WIDTH)).movedim(2, 0).transpose(2, 3)
        attended = scaled_dot_product_attention(query, key, value)  # (B, heads, 1 + N, width of a head)
        return self.out(attended.transpose(1, 2).flatten(2))


def _as_it_is(probability: Tensor) -> Tensor:
    return probability


class AFClip(Adaptor):
    """AF-CLIP: tokens before the text, and one attention layer for the tokens of all stages.

    Args:
        width: Width of the image tower.
        text_width: Width of the text tower.
        grid: Patches along an axis.
    """

    title = "AF-CLIP"
    form = "a folder of the authors' two files, *_prompt.pt and *_adaptor.pt"
    released: ClassVar = {
        f"af_clip_{data}": tuple(
            Release(_URL, f"{data}_{part}.pt", blob, f"af_clip_{data}")
            for part, blob in zip(("prompt", "adaptor"), blobs, strict=True)
        )
        for data, blobs in {
            "visa": ("e05bee61b1f26e085362298be63bc1c4cb01311b", "17e206c114b9dc6f4c5aa1b5706ff54240c50ddd"),
            "mvtec": ("9d52021f48946d3fe9e6b1780f120137adfb9b82", "bfb640436055e9140b843520cc07dd354d599e0d"),
        }.items()
    }
    """By the data set they were trained on. They have no licence: fetched for a user, never shipped."""
    parts = ("*_prompt.pt", "*_adaptor.pt")
    backbone: ClassVar = {"backbone": "ViT-L-14-336", "pretrained": "openai", "image_size": 518}
    scale = ScoreScale(_as_it_is, 0.5, peak_weight=0.0)
    smoothing = 4.0
    sets = STAGES * len(RADII)
    distance_unit = 1 / (2 * sets)
    undecided = TEXT_SHARE / 2
    by_patches = True
    radii = (1,)  # they are aggregated already
    trains_text = True
    course = (Stage(epochs=2, batch_size=8, learning_rate=1e-4),)
    betas = (0.5, 0.999)

    def __init__(self, width: int, text_width: int, grid: int) -> None:
        super().__init__()
        self.prompt = nn.Parameter(0.01 * torch.randn(1, _LEARNT, text_width))
        self.adaptor = AggregatedAttention(width, grid)

    @classmethod
    def of(cls, shape: Shape) -> AFClip:
        """New layers."""
        return cls(shape.width, shape.text_width, shape.grid)

    @classmethod
    def prepare(cls, clip: CLIP, positions: Tensor | None) -> None:
        """Resize positions as the authors do."""
        check_causal(clip, cls.title)
        if positions is not None:
            own = clip.visual.positional_embedding
            grid = isqrt(len(own) - 1)
            own.data = resize_positions(positions, grid, "bilinear", antialias=False).to(own)

    def vectors(self, text: CLIP | TextTransformer, tokenizer: Tokenizer) -> Tensor:
        """The vectors of both states, the same for all classes: (D, 2)."""
        tokens = causal_tokens(tokenizer, STATES).to(self.prompt.device)
        embedded = torch.cat([self.prompt.expand(len(tokens), -1, -1), text.token_embedding(tokens)], dim=1)
        ends = causal_ends(text, embedded, _LEARNT + tokens.argmax(dim=1))
        return normalize((ends @ text.text_projection).float(), dim=-1).T

    def encode(self, encoder: ClassEncoder, class_name: str, rvs_options: Mapping[str, float] | None = None) -> Tensor:
        """The vectors of both states; the class has no part in them."""
        del rvs_options
        check_class_name(class_name)
        return self.vectors(text_tower(encoder.clip), encoder.tokenizer)

    def project(self, visual: VisionTransformer, stages: Sequence[Tensor]) -> list[Tensor]:
        """Adapted tokens in the space of text, of each stage and neighbourhood: twelve (B, 1 + N, D) of any length.

        Args:
            visual: The image tower, of which ``ln_post`` and the projection are used.
            stages: Tokens of the four stages (B, 1 + N, width).
        """
        return [project_tokens(visual, adapted) for tokens in stages for adapted in self.adaptor(tokens.float())]

    def memorable(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """What is compared with normal images: twelve sets of aggregated patches (B, N, width), not adapted."""
        return [patches[:, 1:] for tokens in stages for patches in self.adaptor.aggregate(tokens.float())]

    def read(self, view: View, images: Tensor, tokens: bool) -> Read:
        """Tokens of the four stages (B, 1 + N, width)."""
        stages = ordinary_path(view.visual, images)
        return Read(stages, self.memorable(stages) if tokens else None)

    def compare(self, view: View, features: Sequence[Tensor], text: Tensor) -> Found:
        """Probability of the abnormal state of the CLS token, and of the patches, upsampled and smoothed."""
        probability = abnormal_probabilities(self.project(view.visual, features), text)
        return Found(probability[:, 0], smooth(probability[:, 1:], view.smoothing))

    def image_features(self, view: View, features: Sequence[Tensor]) -> Tensor:
        """Projected CLS token of the last stage, as CLIP has it."""
        return project_features(view.visual, features[-1][:, :1]).squeeze(1)

    def text_part(self, anomaly_map: Tensor) -> Tensor:
        """A tenth of the probability."""
        return TEXT_SHARE * anomaly_map

    def lesson(self, view: View, images: Tensor, stage: int) -> list[Tensor]:
        """Tokens of the four stages (B, 1 + N, width)."""
        del stage
        return ordinary_path(view.visual, images)

    def losses(self, view: View, lesson: Lesson) -> dict[str, Tensor]:
        """Of images, patches, and their alignment; see ``af_clip_losses``."""
        projected = self.project(view.visual, lesson.features)
        return af_clip_losses(projected, lesson.text, lesson.masks, lesson.labels, self.as_coded)

    def foreign_state(self, files: Sequence[Path]) -> dict[str, Tensor]:
        """Of the learnt tokens, a parameter, and of the layer, a pickled module."""
        prompt, adaptor = files
        names = {theirs: ours for ours, theirs in _THEIRS.items()}
        state = {"prompt": read_plain(prompt).detach()}
        for name, value in read_module(adaptor, _CLASSES).items():
            part, _, kind = name.rpartition(".")
            state[f"adaptor.{names.get(part, part)}.{kind}"] = value
        return state
