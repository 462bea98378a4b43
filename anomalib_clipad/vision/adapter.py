"""The linear layers of SDP+: patch features of the ordinary path, one stage at a time (paper section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from .dual_path import STAGES
from .smoothing import smooth
from .surgery import LOGIT_SCALE


class LinearAdapter(nn.Module):
    """One linear layer per stage, from the ordinary path's patch tokens to the space shared with text.

    Args:
        width: Width of the image tower.
        dim: Dimension of the text features.
        grid: Patches along an axis.
        image_size: Height and width of the maps in pixels.

    Attributes:
        fc: The layers.
        trained: Whether they have learnt anything yet: a boolean scalar, part of the state.
    """

    trained: Tensor
    upsampling: Tensor

    def __init__(self, width: int, dim: int, grid: int, image_size: int) -> None:
        super().__init__()
        self.fc = nn.ModuleList(nn.Linear(width, dim, dtype=torch.float32) for _ in range(STAGES))
        self.register_buffer("trained", torch.tensor(False))
        self.register_buffer("upsampling", upsampling_matrix(grid, image_size), persistent=False)

    def forward(self, patches: Sequence[Tensor], text_features: Tensor) -> Tensor:
        """Probability of the abnormal state per stage and pixel.

        The softmax over two classes is the sigmoid of the difference of their logits, and as upsampling is linear, only
        the difference needs it.

        Args:
            patches: Tapped ordinary stream of each stage, without CLS: four tensors (B, N, width).
            text_features: Representative vectors, normal and abnormal: (D, 2), or (B, D, 2), one pair per image.

        Returns:
            Probabilities (4, B, H, W).
        """
        towards = (text_features[..., 1] - text_features[..., 0]).unsqueeze(-1)
        logits = [
            LOGIT_SCALE * (normalize(layer(tokens.float()), dim=-1) @ towards).squeeze(-1)
            for layer, tokens in zip(self.fc, patches, strict=True)
        ]
        return torch.stack([smooth(stage, self.upsampling) for stage in logits]).sigmoid()


def upsampling_matrix(grid: int, size: int) -> Tensor:
    """Bilinear interpolation with ``align_corners=True`` along one axis: (size, grid)."""
    identity = torch.eye(grid, dtype=torch.float32)[None]
    return interpolate(identity, size=size, mode="linear", align_corners=True)[0].T.contiguous()
