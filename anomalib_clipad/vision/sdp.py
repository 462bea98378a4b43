"""SDP: the dual path and feature surgery, without anything trained (paper section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .dual_path import STAGES, StageFeatures, dual_path, ordinary_path, project_features
from .reader import Found, Read, Reader, View
from .smoothing import smooth
from .surgery import SDP, abnormal_probability, abnormal_response, calibrate_map


class DualPath(Reader):
    """The reader of CLIP-AD."""

    scale = SDP
    patches = False  # whether the ordinary path's patches are read too

    def read(self, view: View, images: Tensor, tokens: bool) -> Read:
        """Features of the four stages."""
        stages = dual_path(view.visual, images, view.tap, patches=self.patches, outputs=tokens)
        return Read(stages, [cast("Tensor", stage.output) for stage in stages] if tokens else None)

    def compare(self, view: View, features: Sequence[StageFeatures], text: Tensor) -> Found:
        """Probability of the abnormal state, and the smoothed sum of the four stages' abnormal responses."""
        responses, cls_features = respond(view.visual, features, text)  # (4, B, N), (B, D)
        return Found(abnormal_probability(cls_features, text), smooth(responses.sum(dim=0), view.smoothing))

    def image_features(self, view: View, features: Sequence[StageFeatures]) -> Tensor:
        """Projected CLS token of the last stage."""
        return project_features(view.visual, features[-1].ordinary[:, :1]).squeeze(1)

    def read_tokens(self, view: View, images: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """By the ordinary path alone."""
        outputs = ordinary_path(view.visual, images)  # 4 x (B, 1 + N, width)
        cls = project_features(view.visual, outputs[-1][:, :1]).squeeze(1)
        return [tokens[:, 1:] for tokens in outputs], cls

    def text_part(self, anomaly_map: Tensor) -> Tensor:
        """Four times the probability of each pixel."""
        return STAGES * calibrate_map(anomaly_map)


def respond(visual: Any, stages: Sequence[StageFeatures], text: Tensor) -> tuple[Tensor, Tensor]:
    """Abnormal response of each stage and patch (4, B, N), and the last stage's CLS features (B, D).

    Args:
        visual: The image tower.
        stages: Of ``dual_path``.
        text: Representative vectors, normal and abnormal: (D, 2), or (B, D, 2), one pair per image.
    """
    responses = []
    for stage in stages:
        patch_features = project_features(visual, stage.surgery)  # (B, N, D)
        cls_features = project_features(visual, stage.ordinary[:, :1]).squeeze(1)  # (B, D)
        responses.append(abnormal_response(patch_features, cls_features, text))  # (B, N)
    return torch.stack(responses), cls_features
