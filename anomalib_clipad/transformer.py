"""An open_clip residual block, taken apart: both towers read the block's own weights."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear


def _onednn() -> Any:
    """oneDNN's linear layer with bias and activation, on x86 CPUs; it is private to torch, and may be gone one day."""
    both = torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None) if both else None


_LINEAR_POINTWISE = _onednn()


def affine(tokens: Tensor, weight: Tensor, bias: Tensor | None, activation: Literal["none", "gelu"] = "none") -> Tensor:
    """``linear``, then an activation.

    In float32 on x86 CPUs, where no gradient is wanted, it is one call of oneDNN, which adds the bias and applies the
    activation while it multiplies; torch's ``linear`` calls MKL and goes over the result once more for each. Compiled
    and exported graphs, autocast, ``torch.backends.mkldnn.flags(enabled=False)``, and a torch without that call have
    torch's operators.

    Args:
        tokens: Tokens (..., width).
        weight: Weight (out, width).
        bias: Bias (out,).
        activation: What is applied to the result.
    """
    watched = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu")
    fused = None if watched or not torch.backends.mkldnn.enabled else _LINEAR_POINTWISE
    if fused is not None and tokens.is_cpu and tokens.dtype == torch.float32:
        return fused(tokens, weight, bias, activation, [], "none")
    result = linear(tokens, weight, bias)
    return gelu(result) if activation == "gelu" else result


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
        query, key, value = affine(tokens, weight, bias).chunk(3, dim=-1)
    else:
        width = tokens.shape[-1]
        query = affine(tokens[:, queries], weight[:width], bias[:width])
        key, value = affine(tokens, weight[width:], bias[width:]).chunk(2, dim=-1)
    heads = [part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (query, key, value)]
    if key.stride(1) * key.element_size() % 4096 == 0:  # rows that compete for the same cache lines
        heads = [part.contiguous() for part in heads]
    query, key, value = heads
    return query, key, value


def project_out(attention: nn.MultiheadAttention, heads: Tensor) -> Tensor:
    """Join (B, heads, N, width / heads) and apply the output projection: (B, N, width)."""
    return affine(heads.transpose(1, 2).flatten(2), attention.out_proj.weight, attention.out_proj.bias)


def feed_forward(mlp: nn.Sequential, tokens: Tensor) -> Tensor:
    """A block's feed-forward network, of two linear layers and an activation between them: (B, N, width)."""
    widen, activation, narrow = cast("tuple[nn.Linear, nn.Module, nn.Linear]", tuple(mlp))
    if type(activation) is nn.GELU and activation.approximate == "none":
        hidden = affine(tokens, widen.weight, widen.bias, "gelu")
    else:
        hidden = activation(affine(tokens, widen.weight, widen.bias))
    return affine(hidden, narrow.weight, narrow.bias)


def activations_and_heads(module: nn.Module) -> str:
    """What the transformers in a module compute with besides their weights, as text: activations, numbers of heads."""
    blocks = list(module.modules())
    activations = {str(block) for block in blocks if "GELU" in type(block).__name__}
    heads = {f"{block.num_heads} heads" for block in blocks if isinstance(block, nn.MultiheadAttention)}
    return ", ".join(sorted(activations | heads))
