"""CLIP's image tower in torch's own modules, for files that are read where open_clip is not installed."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn


class Tower(nn.Module):
    """What the dual path reads of an open_clip tower."""

    transformer: Any

    @classmethod
    def copy_of(cls, visual: nn.Module) -> Tower:
        """A copy, in float32, of an open_clip ``VisionTransformer``, or of another such copy."""
        if isinstance(visual, Tower):
            return deepcopy(visual).float()
        from open_clip.transformer import QuickGELU

        blocks = cast("Any", visual).transformer.resblocks
        activation = blocks[0].mlp[1]
        quick = isinstance(activation, QuickGELU)
        weights = {name: value.detach().clone().float() for name, value in visual.state_dict().items()}
        tower = cls.from_weights(weights, blocks[0].attn.num_heads, quick, cast("Any", visual).ln_post.eps)
        for block in () if quick else tower.transformer.resblocks:
            block.mlp[1] = deepcopy(activation)
        return tower

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor], heads: int, quick_gelu: bool, eps: float) -> Tower:
        """A tower of weights, float32, by their names in an open_clip ``VisionTransformer``; it keeps them as they are.

        Args:
            weights: All of its weights.
            heads: Attention heads.
            quick_gelu: Whether the activation is QuickGELU.
            eps: Of the layer norms.

        Raises:
            RuntimeError: If one is missing, or is of no part of the tower.
        """
        width, channels, patch, _ = weights["conv1.weight"].shape
        blocks = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("transformer."))
        hidden = len(weights["transformer.resblocks.0.mlp.c_fc.weight"])
        tower = cls()
        with torch.device("meta"):
            tower.conv1 = nn.Conv2d(channels, width, patch, patch, bias=False)
            for name in ("class_embedding", "positional_embedding", "proj"):
                setattr(tower, name, nn.Parameter(torch.empty_like(weights[name])))
            tower.ln_pre = nn.LayerNorm(width, eps) if "ln_pre.weight" in weights else nn.Identity()
            tower.ln_post = nn.LayerNorm(width, eps)
            tower.transformer = nn.Module()
            empty = (_empty_block(width, hidden, heads, quick_gelu, eps) for _ in range(blocks))
            tower.transformer.resblocks = nn.ModuleList(empty)
        for name, gamma in weights.items():
            if name.endswith(".gamma"):
                block, _, scale = name.removesuffix(".gamma").rpartition(".")
                setattr(tower.get_submodule(block), scale, _Scale(gamma))
        names = {name: name.replace("mlp.c_fc", "mlp.0").replace("mlp.c_proj", "mlp.2") for name in weights}
        tower.load_state_dict({names[name]: value for name, value in weights.items()}, assign=True)
        return tower.eval().requires_grad_(False)


class _Scale(nn.Module):
    def __init__(self, gamma: Tensor) -> None:
        super().__init__()
        self.gamma = nn.Parameter(gamma.detach().clone())

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class _QuickGELU(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * torch.sigmoid(1.702 * tokens)


def _empty_block(width: int, hidden: int, heads: int, quick_gelu: bool, eps: float) -> nn.Module:
    plain = nn.Module()
    plain.ln_1, plain.ln_2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
    plain.attn = nn.MultiheadAttention(width, heads)
    activation = _QuickGELU() if quick_gelu else nn.GELU()
    plain.mlp = nn.Sequential(nn.Linear(width, hidden), activation, nn.Linear(hidden, width))
    plain.ls_1, plain.ls_2 = nn.Identity(), nn.Identity()
    return plain
