"""The attention of an open_clip residual block, taken apart: both towers read the block's own weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear


def project_qkv(
    attention: nn.MultiheadAttention, tokens: Tensor, queries: slice = slice(None)
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of (B, N, width) tokens, each (B, heads, N, width / heads).

    Args:
        attention: Whose weights are read.
        tokens: Tokens (B, N, width).
        queries: Of which tokens queries are made.
    """
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    if queries == slice(None):
        query, key, value = linear(tokens, weight, bias).chunk(3, dim=-1)
    else:
        width = tokens.shape[-1]
        query = linear(tokens[:, queries], weight[:width], bias[:width])
        key, value = linear(tokens, weight[width:], bias[width:]).chunk(2, dim=-1)
    heads = [part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (query, key, value)]
    if key.stride(1) * key.element_size() % 4096 == 0:  # rows that compete for the same cache lines
        heads = [part.contiguous() for part in heads]
    query, key, value = heads
    return query, key, value


def project_out(attention: nn.MultiheadAttention, heads: Tensor) -> Tensor:
    """Join (B, heads, N, width / heads) and apply the output projection: (B, N, width)."""
    return attention.out_proj(heads.transpose(1, 2).flatten(2))
