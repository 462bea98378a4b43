"""Probabilities and losses of AF-CLIP: focal on images and patches, mean error of the map, alignment of patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from anomalib_clipad.vision.surgery import towards_abnormal

_GAMMA = 4
_TEMPERATURE = 0.07
_SMALLEST_LOG = -100.0


def abnormal_probabilities(projected: Sequence[Tensor], text_features: Tensor) -> Tensor:
    """Probability (B, 1 + N) of the abnormal state for each token, CLS first.

    Args:
        projected: Sets of tokens (B, 1 + N, D); their cosines are summed.
        text_features: Vectors of the normal and the abnormal state (D, 2), or (B, D, 2).
    """
    towards = towards_abnormal(text_features)
    logits = [(normalize(tokens, dim=-1) @ towards).squeeze(-1) for tokens in projected]
    return (torch.stack(logits).sum(dim=0) / _TEMPERATURE).sigmoid()


def patch_targets(masks: Tensor, grid: int) -> Tensor:
    """What each patch should be (B, N): 1 abnormal, 0 normal, exactly 0.5 if it is half of each.

    Args:
        masks: Masks of 0 and 1 (B, H, W).
        grid: Patches along an axis.
    """
    means = interpolate(masks[:, None].float(), (grid, grid), mode="bilinear", align_corners=False).flatten(1)
    return torch.where(means == 0.5, means, (means > 0.5).float())


def focal(probability: Tensor, target: Tensor, as_coded: bool = False) -> Tensor:
    """Mean of the cross entropy, each element weighted by the fourth power of its error: a scalar.

    Args:
        probability: Probabilities of the abnormal state, of any shape.
        target: What they should be, in [0, 1].
        as_coded: Take the gradient that the authors' program has at targets of 0, which it overwrites by -1 between the
            loss and the backward pass. The value is the same.
    """
    hit, miss = (part.clamp(min=_SMALLEST_LOG) for part in (probability.log(), (-probability).log1p()))
    entropy = -(target * hit + (1 - target) * miss)
    right = probability * target + (1 - probability) * (1 - target)
    loss = (entropy * (1 - right) ** _GAMMA).mean()
    if not as_coded:
        return loss
    with torch.no_grad():
        further = probability**3 / (1 - probability) - 4 * probability**3 * miss
        further = torch.where(target == 0, further, 0)
    shift = (further * probability).mean()
    return loss + (shift - shift.detach())


def alignment_terms(projected: Sequence[Tensor], target: Tensor) -> Tensor:
    """How much more patches of different kinds resemble each other than those of the same kind, for each set (12,).

    The mean cosine of pairs of a normal and an abnormal patch of the same image, less that of pairs of one kind, over
    the whole batch; 0 where that is negative, or where there are no pairs. A sum over pairs is a product of sums, so no
    pair is ever formed.

    Args:
        projected: Sets of patches (B, N, D), of any length.
        target: Of ``patch_targets`` (B, N); patches of 0.5 belong to no pair.
    """
    abnormal, normal = (target == 1).float(), (target == 0).float()
    counts = abnormal.sum(dim=1), normal.sum(dim=1)
    different = 2 * (counts[0] * counts[1]).sum()
    same = (counts[0] ** 2 + counts[1] ** 2).sum()
    terms = []
    for patches in projected:
        units = normalize(patches, dim=-1)
        sums = [(kind.unsqueeze(1) @ units).squeeze(1) for kind in (abnormal, normal)]  # (B, D)
        apart = 2 * (sums[0] * sums[1]).sum() / different.clamp(min=1)
        alike = (sums[0].square() + sums[1].square()).sum() / same.clamp(min=1)
        terms.append((apart - alike).clamp(min=0) * (different > 0))
    return torch.stack(terms)


def af_clip_losses(
    projected: Sequence[Tensor], text_features: Tensor, masks: Tensor, labels: Tensor, as_coded: bool = False
) -> dict[str, Tensor]:
    """The losses by name; AF-CLIP is trained on their sum.

    Args:
        projected: Of ``AFClip.project``.
        text_features: Of ``AFClip.vectors``.
        masks: Masks of 0 and 1 (B, H, W).
        labels: 1 for a defective image, else 0 (B,).
        as_coded: As of ``focal``, for the map.
    """
    probability = abnormal_probabilities(projected, text_features)
    cls, patches = probability[:, 0], probability[:, 1:]
    target = patch_targets(masks, round(patches.shape[1] ** 0.5))
    return {
        "focal_image": focal(cls, labels.float()),
        "focal_map": focal(patches, target, as_coded),
        "l1": (patches - target).abs().mean(),
        "align": alignment_terms([tokens[:, 1:] for tokens in projected], target).mean(),
    }
