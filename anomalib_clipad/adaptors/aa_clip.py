"""AA-CLIP: small residual layers after the first blocks of both towers, and projections of their own.

The arithmetic, as its authors compute it (docs/algorithm.md, AA-CLIP).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear, normalize

from anomalib_clipad.text.encoder import Tokenizer, causal_ends, causal_tokens
from anomalib_clipad.vision.dual_path import STAGES, ordinary_path, project_features
from anomalib_clipad.vision.surgery import LOGIT_SCALE

from .aa_clip_text import AA_CLIP, described

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.transformer import TextTransformer, VisionTransformer

_TEXT_LAYERS = 3
_IMAGE_LAYERS = 6
_SHARE = 0.1


class ResidualAdapter(nn.Linear):
    """Mixes a tenth of an adapted token into a token; the adapted one is made as long as the token first.

    Args:
        width: Width of the tower.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width, bias=False)

    def reset_parameters(self) -> None:
        """As the authors start."""
        nn.init.xavier_uniform_(self.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (..., width)."""
        adapted = leaky_relu(linear(tokens.float(), self.weight))
        lengths = [part.norm(dim=-1, keepdim=True) for part in (tokens.float(), adapted)]
        return ((1 - _SHARE) * tokens + _SHARE * adapted * lengths[0] / lengths[1]).to(tokens.dtype)


class AAClipLayers(nn.Module):
    """What AA-CLIP trains: in stage 1 the layers of the text tower, in stage 2 those of the image tower.

    Args:
        width: Width of the image tower.
        text_width: Width of the text tower.
        dim: Dimension of the text features.
        layers: Image blocks, from the first on, that have an adapter.
        relu: Whether the projections of the image side have a LeakyReLU, as of files trained with ``--relu``.
    """

    def __init__(self, width: int, text_width: int, dim: int, layers: int = _IMAGE_LAYERS, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.text_adapter = nn.ModuleList(ResidualAdapter(text_width) for _ in range(_TEXT_LAYERS))
        self.text_projection = nn.Linear(text_width, dim, bias=False)
        self.image_adapter = nn.ModuleList(ResidualAdapter(width) for _ in range(layers))
        self.seg_projection = nn.ModuleList(nn.Linear(width, dim, bias=False) for _ in range(STAGES))
        self.det_projection = nn.Linear(width, dim, bias=False)
        for projection in (self.text_projection, *self.seg_projection, self.det_projection):
            nn.init.xavier_uniform_(projection.weight)

    def encode_sentences(
        self, text: CLIP | TextTransformer, tokenizer: Tokenizer, class_name: str
    ) -> tuple[Tensor, Tensor]:
        """L2-normalised features of a class's sentences: normal (6, D) and abnormal (10, D)."""
        normal, abnormal = AA_CLIP.texts(described(class_name))
        tokens = causal_tokens(tokenizer, [*normal, *abnormal]).to(self.text_projection.weight.device)
        embedded = text.token_embedding(tokens)
        ends = causal_ends(text, embedded, tokens.argmax(dim=1), _after(self.text_adapter))
        features = normalize(leaky_relu(self.text_projection(ends.float())), dim=-1)
        return features[: len(normal)], features[len(normal) :]

    def encode(self, text: CLIP | TextTransformer, tokenizer: Tokenizer, class_name: str) -> Tensor:
        """The vectors of a class, normal and abnormal: (D, 2)."""
        states = self.encode_sentences(text, tokenizer, class_name)
        return torch.stack([normalize(features.mean(dim=0), dim=-1) for features in states], dim=1)

    def read(self, visual: VisionTransformer, images: Tensor) -> list[Tensor]:
        """Tokens of the four stages (B, 1 + N, width), of the tower with its adapters."""
        return ordinary_path(visual, images, _after(self.image_adapter))

    def project(self, visual: VisionTransformer, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What is compared with text: patches of each stage (4, B, N, D), unit vectors, and the image (B, D).

        Args:
            visual: The image tower, of which ``ln_post`` is used.
            stages: Of ``read``.
        """
        normed = [visual.ln_post(tokens[:, 1:]).float() for tokens in stages]
        levels = [self._project(layer, tokens) for layer, tokens in zip(self.seg_projection, normed, strict=True)]
        return torch.stack(levels), self._project(self.det_projection, normed[-1]).mean(dim=1)

    def _project(self, layer: nn.Module, tokens: Tensor) -> Tensor:
        projected = layer(tokens)
        return normalize(leaky_relu(projected) if self.relu else projected, dim=-1)


def _after(adapters: nn.ModuleList) -> Callable[[int, Tensor], Tensor]:
    """Adapters after the first blocks, one after each."""
    return lambda block, tokens: adapters[block - 1](tokens) if block <= len(adapters) else tokens


def stage_one_features(visual: VisionTransformer, images: Tensor) -> Tensor:
    """What the text is trained on, of CLIP without adapters: patches of four stages (4, B, N, D).

    From the block that ends the first stage on, values attend to values, among the patches of an image. The unit vector
    of the image by CLIP as it is joins each unit vector of a patch.
    """
    patches = ordinary_path(visual, images, values_from=len(visual.transformer.resblocks) // STAGES)
    cls = project_features(visual, ordinary_path(visual, images)[-1][:, :1])
    return torch.stack([project_features(visual, tokens[:, 1:]) + cls for tokens in patches])


def level_logits(levels: Tensor, text_features: Tensor) -> Tensor:
    """How much closer patches are to the abnormal state, times 100: (4, B, N).

    Args:
        levels: Patches of the four stages (4, B, N, D).
        text_features: Vectors, normal and abnormal: (D, 2), or (B, D, 2), one pair per image.
    """
    towards = (text_features[..., 1] - text_features[..., 0]).unsqueeze(-1)
    return LOGIT_SCALE * (levels @ towards).squeeze(-1)


def level_maps(levels: Tensor, text_features: Tensor) -> Tensor:
    """Raw maps (4, B, N): 0.5 where a patch is as close to both states. Arguments as of ``level_logits``."""
    return (level_logits(levels, text_features) + 1) / 2


def detection_score(image: Tensor, text_features: Tensor) -> Tensor:
    """Raw image score (B,), by image features (B, D); the normal state has no part in it."""
    return ((image.unsqueeze(1) @ text_features).squeeze(1)[:, 1] + 1) / 2
