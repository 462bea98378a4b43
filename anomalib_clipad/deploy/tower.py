"""CLIP's image tower in torch's own modules, for files that are read where open_clip is not installed."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn


class Tower(nn.Module):
    """A copy, in float32, of what the dual path reads of an open_clip tower.

    Args:
        visual: open_clip ``VisionTransformer``.
    """

    def __init__(self, visual: VisionTransformer) -> None:
        super().__init__()
        self.conv1 = deepcopy(visual.conv1)
        self.class_embedding = deepcopy(visual.class_embedding)
        self.positional_embedding = deepcopy(visual.positional_embedding)
        self.proj = deepcopy(visual.proj)
        self.ln_pre, self.ln_post = _layer_norm(visual.ln_pre), _layer_norm(visual.ln_post)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(_block(block) for block in visual.transformer.resblocks)
        self.float().eval().requires_grad_(False)


class _Scale(nn.Module):
    def __init__(self, gamma: Tensor) -> None:
        super().__init__()
        self.gamma = nn.Parameter(gamma.detach().clone())

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class _QuickGELU(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * torch.sigmoid(1.702 * tokens)


def _block(block: Any) -> nn.Module:
    plain = nn.Module()
    plain.ln_1, plain.ln_2 = _layer_norm(block.ln_1), _layer_norm(block.ln_2)
    plain.attn = deepcopy(block.attn)
    activation = _QuickGELU() if isinstance(block.mlp.gelu, QuickGELU) else deepcopy(block.mlp.gelu)
    plain.mlp = nn.Sequential(deepcopy(block.mlp.c_fc), activation, deepcopy(block.mlp.c_proj))
    plain.ls_1, plain.ls_2 = (
        _Scale(scale.gamma) if hasattr(scale, "gamma") else nn.Identity() for scale in (block.ls_1, block.ls_2)
    )
    return plain


def _layer_norm(norm: Any) -> nn.Module:
    if not isinstance(norm, nn.LayerNorm):
        return deepcopy(norm)
    plain = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
    plain.load_state_dict(norm.state_dict())
    return plain
