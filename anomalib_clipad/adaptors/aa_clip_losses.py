"""Maps, scores and losses of AA-CLIP: stage 1 trains the text, stage 2 the image side."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from anomalib_clipad.vision.smoothing import smooth
from anomalib_clipad.vision.surgery import LOGIT_SCALE, cosines, towards_abnormal

from .losses import dice_loss, focal_loss

ORTHOGONALITY = 0.1
"""Weight of the orthogonality of the two states in stage 1."""


def level_logits(levels: Tensor, text_features: Tensor) -> Tensor:
    """How much closer patches are to the abnormal state, times 100: (4, B, N).

    Args:
        levels: Patches of the four stages (4, B, N, D).
        text_features: Vectors, normal and abnormal: (D, 2), or (B, D, 2), one pair per image.
    """
    towards = towards_abnormal(text_features)
    return LOGIT_SCALE * (levels @ towards).squeeze(-1)


def level_maps(levels: Tensor, text_features: Tensor) -> Tensor:
    """Raw maps (4, B, N): 0.5 where a patch is as close to both states. Arguments as of ``level_logits``."""
    return (level_logits(levels, text_features) + 1) / 2


def detection_score(image: Tensor, text_features: Tensor) -> Tensor:
    """Raw image score (B,), by image features (B, D); the normal state has no part in it."""
    return (cosines(image, text_features)[:, 1] + 1) / 2


def level_losses(levels: Tensor, text_features: Tensor, masks: Tensor, upsampling: Tensor) -> list[Tensor]:
    """Loss of each stage: focal, and dice of both states.

    Args:
        levels: Patches of the four stages (4, B, N, D).
        text_features: Vectors, normal and abnormal, one pair per image (B, D, 2).
        masks: Masks of 0 and 1 (B, H, W).
        upsampling: Of ``upsampling_matrix``.
    """
    target = masks.float()
    probabilities = smooth(level_logits(levels, text_features).flatten(0, 1), upsampling).sigmoid()
    return [
        focal_loss(abnormal, target) + dice_loss(1 - abnormal, 1 - target) + dice_loss(abnormal, target)
        for abnormal in probabilities.unflatten(0, levels.shape[:2])
    ]


def orthogonality(text_features: Tensor) -> Tensor:
    """Square of the mean cosine of the two states of a batch (B, D, 2): a scalar."""
    return (text_features[..., 0] * text_features[..., 1]).sum(dim=-1).mean().square()


def stage_one_losses(
    features: Tensor, text_features: Tensor, masks: Tensor, upsampling: Tensor, last_level: bool = False
) -> dict[str, Tensor]:
    """The losses of the text by name; stage 1 trains on their sum.

    Args:
        features: Of ``stage_one_features``.
        text_features: As of ``level_losses``.
        masks: As of ``level_losses``.
        upsampling: As of ``level_losses``.
        last_level: Only the last stage's, as the authors' program has it.
    """
    levels = enumerate(level_losses(features, text_features, masks, upsampling), start=1)
    named = {f"level_{level}": loss for level, loss in levels if not last_level or level == len(features)}
    return {**named, "orthogonality": ORTHOGONALITY * orthogonality(text_features)}


def stage_two_losses(
    levels: Tensor, image: Tensor, text_features: Tensor, masks: Tensor, labels: Tensor, upsampling: Tensor
) -> dict[str, Tensor]:
    """The losses of the image side by name; stage 2 trains on their sum.

    Args:
        levels: Of ``AAClip.project``.
        image: Of ``AAClip.project`` (B, D).
        text_features: As of ``level_losses``.
        masks: As of ``level_losses``.
        labels: 1 for a defective image, else 0 (B,).
        upsampling: As of ``level_losses``.
    """
    named = enumerate(level_losses(levels, text_features, masks, upsampling), start=1)
    return {
        "image": cross_entropy(cosines(image, text_features), labels.long()),
        **{f"level_{level}": loss for level, loss in named},
    }
