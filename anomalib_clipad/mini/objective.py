"""The losses of clipad-mini: CLIP-AD's own scores, with gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from open_clip import CLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize, softplus

from anomalib_clipad.text.encoder import Tokenizer, encode_causal
from anomalib_clipad.vision.detector import Detector
from anomalib_clipad.vision.dual_path import dual_path
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
        corner: First patch row and column.
        side: Patches along an axis.
    """

    def __init__(self, visual: VisionTransformer, corner: tuple[int, int], side: int) -> None:
        super().__init__()
        row, column = corner
        grid = visual.image_size[0] // PATCH
        cls, patches = visual.positional_embedding.split([1, grid * grid])
        window = patches.unflatten(0, (grid, grid))[row : row + side, column : column + side].flatten(0, 1)
        self.conv1, self.ln_pre, self.ln_post = visual.conv1, visual.ln_pre, visual.ln_post
        self.transformer = visual.transformer
        self.class_embedding, self.proj = visual.class_embedding, visual.proj
        self._window = torch.cat([cls, window])

    @property
    def positional_embedding(self) -> Tensor:
        """Position embeddings of CLS and the window's patches (1 + N, width)."""
        return self._window


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


def batch_losses(clip: CLIP, batch: Batch, text_features: Tensor, kind_features: Tensor) -> Mapping[str, Tensor]:
    """The losses of one batch, by name.

    Args:
        clip: open_clip model.
        batch: Pictures; the damaged twins are the second half.
        text_features: Representative vectors, normal and abnormal (D, 2).
        kind_features: Embedding of each kind of defect (D, kinds).
    """
    side = round(batch.coverage.shape[1] ** 0.5)
    visual = Window(clip.visual, batch.corner, side)
    detector = Detector(visual, side * PATCH).to(batch.images.device)
    responses, cls_features = detector.respond(dual_path(visual, batch.images), text_features)
    patch_map = responses.sum(dim=0)
    scale = LOGIT_SCALE / 2

    known = ~batch.abnormal.isnan()
    label = batch.abnormal.nan_to_num()
    logits = LOGIT_SCALE * cls_features @ text_features
    image_logit = logits[:, 1] - logits[:, 0]
    kernel = smoothing_matrix(side, side * PATCH, PATCH / 2)[PATCH // 2 :: PATCH].to(patch_map)
    peak = scale * smooth(patch_map, kernel).flatten(1).topk(2, dim=1).values.mean(dim=1)
    damaged = label[len(label) // 2 :] > 0
    losses = {
        "image": binary_cross_entropy_with_logits(image_logit[known], label[known]),
        "map": _dense_loss(scale * patch_map, batch.coverage),
        "stages": torch.stack([_dense_loss(len(responses) * scale * r, batch.coverage) for r in responses]).mean(),
        "peak": binary_cross_entropy_with_logits(peak[known], label[known]),
        "twins": _twin_loss(image_logit, damaged) + _twin_loss(peak, damaged),
        "patches": _twin_loss(scale * patch_map, batch.coverage[len(label) // 2 :] >= _DEFECTIVE),
    }
    second = torch.arange(len(label), device=label.device) >= len(label) // 2
    shown = (label > 0) & second
    losses["kind"] = cross_entropy(20 * cls_features[shown] @ kind_features, batch.kinds[shown])
    return losses


def _twin_loss(logit: Tensor, damaged: Tensor) -> Tensor:
    """A damaged part (or patch) has to score higher than the same one without its defect."""
    flawless, twin = logit.chunk(2)
    return (softplus(1 - (twin - flawless)) * damaged).sum() / damaged.sum().clamp(min=1)


def _dense_loss(logits: Tensor, coverage: Tensor) -> Tensor:
    """Focal loss plus dice of patch logits (B, N); patches with only a trace of a defect do not count."""
    target = (coverage >= _DEFECTIVE).float()
    counts = (target.bool() | (coverage == 0)).float()
    probability = logits.sigmoid()
    hit = torch.where(target > 0, probability, 1 - probability)
    weight = torch.where(target > 0, 4.0, 1.0)
    entropy = binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = ((1 - hit).square() * weight * entropy * counts).sum() / counts.sum()
    overlap = (probability * target).sum(dim=1)
    some = target.sum(dim=1) > 0
    dice = 1 - (2 * overlap + 1) / ((probability * counts).sum(dim=1) + target.sum(dim=1) + 1)
    return 4 * focal + 0.5 * (dice * some).sum() / some.sum().clamp(min=1)
