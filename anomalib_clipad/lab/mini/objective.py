"""The losses of clipad-mini: CLIP-AD's own scores, with gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from open_clip import CLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize, softplus

from anomalib_clipad.text.encoder import Tokenizer, encode_causal
from anomalib_clipad.vision.dual_path import dual_path
from anomalib_clipad.vision.sdp import respond
from anomalib_clipad.vision.smoothing import smooth, smoothing_matrix
from anomalib_clipad.vision.surgery import LOGIT_SCALE

from .batches import PATCH, Batch

WEIGHTS = {"image": 1.0, "map": 1.0, "stages": 0.5, "peak": 0.5, "twins": 0.5, "patches": 0.5, "kind": 0.1}
"""Share of each loss in the total."""
_DEFECTIVE = 0.03
_STATE_COSINE = 0.98
_KIND_SPREAD = 0.2


class Window(nn.Module):
    """A vision tower that sees a part of the picture: the patches from a corner on, at their true positions.

    Args:
        visual: open_clip ``VisionTransformer``.
        side: Patches along an axis.

    Attributes:
        corner: First patch row and column (2,).
    """

    corner: Tensor
    axis: Tensor

    def __init__(self, visual: VisionTransformer, side: int) -> None:
        super().__init__()
        self.conv1, self.ln_pre, self.ln_post = visual.conv1, visual.ln_pre, visual.ln_post
        self.transformer = visual.transformer
        self.class_embedding, self.proj = visual.class_embedding, visual.proj
        self.positions = visual.positional_embedding
        self.grid = visual.image_size[0] // PATCH
        self.register_buffer("corner", torch.zeros(2, dtype=torch.int64), persistent=False)
        self.register_buffer("axis", torch.arange(side), persistent=False)

    @property
    def positional_embedding(self) -> Tensor:
        """Position embeddings of CLS and the window's patches (1 + N, width)."""
        rows, columns = self.corner[:, None] + self.axis
        patches = (1 + rows[:, None] * self.grid + columns).flatten()
        return torch.cat([self.positions[:1], self.positions.index_select(0, patches)])


def embed_captions(clip: CLIP, tokenizer: Tokenizer, captions: list[str]) -> Tensor:
    """L2-normalised embeddings (n, D) of captions, with gradients."""
    tokens = tokenizer(captions).to(clip.logit_scale.device)
    tokens = tokens[:, : int(tokens.argmax(dim=1).max()) + 1]
    return normalize(encode_causal(clip, tokens), dim=-1)


def representatives(normal: Tensor, abnormal: Tensor) -> Tensor:
    """Mean vectors (D, 2) of both states' embeddings (n, D)."""
    return torch.stack([normalize(state.mean(dim=0), dim=0) for state in (normal, abnormal)], dim=1)


def text_loss(normal: Tensor, abnormal: Tensor, kinds: Tensor) -> Tensor:
    """How far captions are from where they belong.

    Those of one state belong to one direction, so that they lie within DBSCAN's reach of each other; the cosine of the
    two states' directions is such that CLIP's temperature of 100 spans the useful range. A kind of defect belongs close
    to the abnormal state, each to its own side.
    """
    axes = torch.eye(normal.shape[1], device=normal.device)
    abnormal_axis = _STATE_COSINE * axes[0] + (1 - _STATE_COSINE**2) ** 0.5 * axes[1]
    kind_axes = normalize(abnormal_axis + _KIND_SPREAD * axes[2 : 2 + len(kinds)], dim=1)
    return 3 - (normal @ axes[0]).mean() - (abnormal @ abnormal_axis).mean() - (kinds * kind_axes).sum(dim=1).mean()


class Objective(nn.Module):
    """The losses of batches of crops of one size.

    Args:
        visual: open_clip ``VisionTransformer``, which is trained.
        size: Height and width of the crops in pixels.
    """

    kernel: Tensor

    def __init__(self, visual: VisionTransformer, size: int) -> None:
        super().__init__()
        side = size // PATCH
        self.window = Window(visual, side)
        kernel = smoothing_matrix(side, size, PATCH / 2)[PATCH // 2 :: PATCH]
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, batch: Batch, text_features: Tensor, kind_features: Tensor) -> Mapping[str, Tensor]:
        """The losses of one batch, by name.

        On a GPU the tower's products are in bfloat16; what is compared with text stays in float32.

        Args:
            batch: Pictures; the damaged twins are the second half.
            text_features: Representative vectors, normal and abnormal (D, 2).
            kind_features: Embedding of each kind of defect (kinds, D).
        """
        self.window.corner.copy_(batch.corner)
        with torch.autocast("cuda", torch.bfloat16, enabled=batch.images.is_cuda):
            stages = dual_path(self.window, batch.images)
        responses, cls_features = respond(self.window, stages, text_features)
        patch_map = responses.sum(dim=0)
        scale = LOGIT_SCALE / 2

        known = (~batch.abnormal.isnan()).float()
        label = batch.abnormal.nan_to_num()
        damaged = label.chunk(2)[1]
        logits = LOGIT_SCALE * cls_features @ text_features
        image_logit = logits[:, 1] - logits[:, 0]
        peak = scale * smooth(patch_map, self.kernel).flatten(1).topk(2, dim=1).values.mean(dim=1)
        kinds = cross_entropy(20 * cls_features @ kind_features.T, batch.kinds, reduction="none").chunk(2)[1]
        return {
            "image": _mean(binary_cross_entropy_with_logits(image_logit, label, reduction="none"), known),
            "map": _dense_loss(scale * patch_map, batch.coverage),
            "stages": torch.stack([_dense_loss(len(responses) * scale * r, batch.coverage) for r in responses]).mean(),
            "peak": _mean(binary_cross_entropy_with_logits(peak, label, reduction="none"), known),
            "twins": _twin_loss(image_logit, damaged) + _twin_loss(peak, damaged),
            "patches": _twin_loss(scale * patch_map, (batch.coverage.chunk(2)[1] >= _DEFECTIVE).float()),
            "kind": _mean(kinds, damaged),
        }


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """Mean of the values that count."""
    return (values * counts).sum() / counts.sum().clamp(min=1)


def _twin_loss(logit: Tensor, damaged: Tensor) -> Tensor:
    """A damaged part (or patch) has to score higher than the same one without its defect."""
    flawless, twin = logit.chunk(2)
    return _mean(softplus(1 - (twin - flawless)), damaged)


def _dense_loss(logits: Tensor, coverage: Tensor) -> Tensor:
    """Focal loss plus dice of patch logits (B, N); patches with only a trace of a defect do not count."""
    target = (coverage >= _DEFECTIVE).float()
    counts = (target.bool() | (coverage == 0)).float()
    probability = logits.sigmoid()
    hit = torch.where(target > 0, probability, 1 - probability)
    weight = 1 + 3 * target
    entropy = binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = ((1 - hit).square() * weight * entropy * counts).sum() / counts.sum()
    overlap = (probability * target).sum(dim=1)
    dice = 1 - (2 * overlap + 1) / ((probability * counts).sum(dim=1) + target.sum(dim=1) + 1)
    return 4 * focal + 0.5 * _mean(dice, target.amax(dim=1))
