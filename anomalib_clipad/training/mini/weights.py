"""The weights of clipad-mini: how they start, and the file they end in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from open_clip import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import unfold

from .batches import PATCH, make_batch
from .pool import Shard

_FLOOR = 0.05
_POSITION_STD = 0.3


def reset(clip: CLIP, shard: Shard) -> None:
    """Initial weights: the image tower's blocks as open_clip draws its text tower's, patches by their components."""
    visual = clip.visual
    width = visual.conv1.out_channels
    std = width**-0.5
    for block in visual.transformer.resblocks:
        nn.init.normal_(block.attn.in_proj_weight, std=std)
        nn.init.normal_(block.attn.out_proj.weight, std=std * (2 * len(visual.transformer.resblocks)) ** -0.5)
        nn.init.normal_(block.mlp.c_fc.weight, std=width**-0.5)
        nn.init.normal_(block.mlp.c_proj.weight, std=std * (2 * len(visual.transformer.resblocks)) ** -0.5)
        for bias in (block.attn.in_proj_bias, block.attn.out_proj.bias, block.mlp.c_fc.bias, block.mlp.c_proj.bias):
            nn.init.zeros_(bias)
    with torch.no_grad():
        visual.conv1.weight.copy_(principal_filters(shard, width).view_as(visual.conv1.weight))
        visual.positional_embedding.mul_(_POSITION_STD / visual.positional_embedding.std())
    clip.train().requires_grad_(True)


def principal_filters(shard: Shard, count: int) -> Tensor:
    """Whitened principal components (count, 3 * 16 * 16) of a shard's patches: the stem starts out seeing detail."""
    rng = np.random.default_rng(0)
    images = make_batch(rng, shard, rng.choice(len(shard.masks), size=100, replace=False), 96).images
    patches = unfold(images, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    covariance = patches.T.cov()
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors / (values + _FLOOR).sqrt()).flip(1)[:, :count].T


def export(clip: CLIP, path: Path) -> None:
    """Write a model's weights as a float16 safetensors file."""
    unfinished = path.with_suffix(".partial")
    save_file({name: value.half().contiguous() for name, value in clip.state_dict().items()}, unfinished)
    unfinished.chmod(0o644)
    unfinished.replace(path)
