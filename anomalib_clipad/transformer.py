"""The attention of an open_clip residual block, taken apart: both towers read the block's own weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear


def project_qkv(attention: nn.MultiheadAttention, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of (B, N, width) tokens, each (B, heads, N, width / heads)."""
    batch, length, width = tokens.shape
    projected = linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    heads = projected.view(batch, length, 3, attention.num_heads, width // attention.num_heads)
    query, key, value = heads.permute(2, 0, 3, 1, 4).unbind()
    return query, key, value


def project_out(attention: nn.MultiheadAttention, heads: Tensor) -> Tensor:
    """Join (B, heads, N, width / heads) and apply the output projection: (B, N, width)."""
    return attention.out_proj(heads.transpose(1, 2).flatten(2))
