"""The weights of clipad-mini: initialisation and export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from open_clip import CLIP, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import unfold
from torchvision.transforms.functional import normalize

from anomalib_clipad.backbones.sources import BUNDLED
from anomalib_clipad.digest import digest
from anomalib_clipad.storage import atomic_folder

from .batches import PATCH

_FLOOR = 0.05
_POSITION_STD = 0.6
_WAVELENGTHS = 100.0
FILTERED = 100
"""Pictures that the first filters are computed from."""


def reset(clip: CLIP, pictures: Tensor) -> None:
    """Initial weights of the image tower, which start out as a detector of local contrast.

    Patches are seen by their principal components, positions are waves, and attention is drawn by the mimetic
    initialisation of Trockman and Kolter (2023): a token attends to its like and its neighbours, and the block takes
    away from it what it has in common with them.
    """
    visual = clip.visual
    width = visual.conv1.out_channels
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in visual.transformer.resblocks:
            _reset_attention(block.attn, generator)
            nn.init.normal_(block.mlp.c_fc.weight, std=width**-0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=(2 * width * len(visual.transformer.resblocks)) ** -0.5)
            nn.init.zeros_(block.mlp.c_fc.bias)
            nn.init.zeros_(block.mlp.c_proj.bias)
        visual.conv1.weight.copy_(principal_filters(pictures, width).view_as(visual.conv1.weight))
        visual.positional_embedding[0] = 0
        visual.positional_embedding[1:] = _waves(round((len(visual.positional_embedding) - 1) ** 0.5), width)


def _reset_attention(attention: nn.MultiheadAttention, generator: torch.Generator) -> None:
    width, heads = attention.embed_dim, attention.num_heads
    query, key, value = attention.in_proj_weight.view(3, heads, width // heads, width)
    for head in range(heads):
        left, right = _factors(0.7, 0.7, width, width // heads, generator)
        query[head], key[head] = left.T, right
    left, right = _factors(0.4, -0.4, width, width, generator)
    value.copy_(right.view_as(value))
    attention.out_proj.weight.copy_(left)
    nn.init.zeros_(attention.in_proj_bias)
    nn.init.zeros_(attention.out_proj.bias)


def _factors(noise: float, identity: float, width: int, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The best (width, rank) and (rank, width) matrices whose product is the identity and noise in some proportion."""
    target = noise * torch.randn(width, width, generator=generator) / width**0.5 + identity * torch.eye(width)
    left, values, right = torch.linalg.svd(target)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def _waves(side: int, width: int) -> Tensor:
    """Sines and cosines (side * side, width) of patch columns and rows, from fast to slow."""
    frequencies = _WAVELENGTHS ** -torch.linspace(0, 1, width // 4 + 1)[:-1]
    angles = torch.arange(side)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    positions = torch.cat([axis.repeat(side, 1), axis.repeat_interleave(side, dim=0)], dim=1)
    return positions * (_POSITION_STD / positions.std())


def principal_filters(pictures: Tensor, count: int) -> Tensor:
    """Whitened principal components (count, 3 * 16 * 16) of pictures' patches: the stem starts out seeing detail.

    Args:
        pictures: Pictures (n, side, side, 3) of uint8.
        count: Number of components.
    """
    pixels = normalize(pictures.permute(0, 3, 1, 2) / 255, list(OPENAI_DATASET_MEAN), list(OPENAI_DATASET_STD))
    patches = unfold(pixels, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    values, vectors = torch.linalg.eigh(patches.T.cov())
    return (vectors / (values + _FLOOR).sqrt()).flip(1)[:, :count].T


def export(clip: CLIP, path: Path) -> None:
    """Write a model's weights as a float16 safetensors file, which says what it is."""
    state = {name: value.half().cpu().contiguous() for name, value in clip.state_dict().items()}
    with atomic_folder(path.parent) as folder:
        save_file(state, folder / path.name, about(state))


def about(state: Mapping[str, Tensor]) -> dict[str, str]:
    """What the file of weights says of itself."""
    return {
        "format": "pt",
        "name": BUNDLED,
        "license": "Apache-2.0",
        "source": "trained on generated images by anomalib-clipad: python -m anomalib_clipad.lab mini-train",
        "digest": digest(state),
    }
