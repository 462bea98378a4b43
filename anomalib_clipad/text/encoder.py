"""Prompts to text embeddings, with as few tokens as the longest prompt needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention
from tqdm.auto import tqdm

from anomalib_clipad.transformer import feed_forward, project_out, project_qkv

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.transformer import TextTransformer

Tokenizer = Callable[[Sequence[str]], Tensor]
_BATCH = 64


def text_tower(clip: CLIP) -> CLIP | TextTransformer:
    """What reads text: a tower of its own in some of open_clip's models, the model itself in others."""
    return getattr(clip, "text", clip)


@torch.inference_mode()
def encode_prompts(clip: CLIP, tokenizer: Tokenizer, prompts: Sequence[str], progress: str = "") -> Tensor:
    """L2-normalised text embeddings (n, D) of n prompts.

    Args:
        clip: open_clip model.
        tokenizer: The model's tokenizer.
        prompts: Texts.
        progress: Description of a progress bar; none is shown without it.

    Raises:
        ValueError: If a prompt fills the model's context, so that its end would be cut off.
    """
    text = text_tower(clip)
    causal = is_causal(text)
    tokens = causal_tokens(tokenizer, prompts) if causal else tokenizer(list(prompts))
    device = next(clip.parameters()).device
    batches: Iterable[Tensor] = tokens.split(_BATCH)
    if progress:
        batches = tqdm(batches, desc=progress, unit="batch", leave=False)
    encode = encode_causal if causal else lambda _, batch: clip.encode_text(batch)
    return torch.cat([normalize(encode(text, batch.to(device)).float(), dim=-1) for batch in batches])


def causal_tokens(tokenizer: Tokenizer, prompts: Sequence[str]) -> Tensor:
    """Tokens (n, length) of prompts, as many as the longest one needs: padding after the end is idle.

    Raises:
        ValueError: If a prompt fills the model's context, so that its end would be cut off.
    """
    tokens = tokenizer(list(prompts))
    lengths = tokens.argmax(dim=1) + 1
    if lengths.max() >= tokens.shape[1]:
        msg = (
            f"The prompt {prompts[int(lengths.argmax())]!r} is longer than the {tokens.shape[1]} tokens the text "
            "encoder reads; give a shorter class name, states or templates."
        )
        raise ValueError(msg)
    return tokens[:, : int(lengths.max())]


def is_causal(text: CLIP | TextTransformer) -> bool:
    """Whether the embedding is read at the end-of-text token under a causal mask, so padding after it is idle."""
    from open_clip.transformer import ResidualAttentionBlock

    return (
        getattr(text, "attn_mask", None) is not None
        and getattr(text, "cls_emb", None) is None
        and getattr(text, "pool_type", getattr(text, "text_pool_type", "argmax")) == "argmax"
        and isinstance(getattr(text, "text_projection", None), nn.Parameter)
        and all(type(block) is ResidualAttentionBlock for block in text.transformer.resblocks)
    )


def encode_causal(text: CLIP | TextTransformer, tokens: Tensor) -> Tensor:
    """The text transformer on (n, length) tokens that end anywhere: embeddings (n, D)."""
    return causal_ends(text, text.token_embedding(tokens), tokens.argmax(dim=1)) @ text.text_projection


def causal_ends(
    text: CLIP | TextTransformer,
    embedded: Tensor,
    ends: Tensor,
    after: Callable[[int, Tensor], Tensor] | None = None,
) -> Tensor:
    """The text transformer up to its projection, read where each text ends.

    Args:
        text: The tower.
        embedded: What its tokens are embedded as, without positions (n, length, width).
        ends: Place of the end-of-text token in each (n,).
        after: What becomes of a block's output, by the number of the block, counted from 1.

    Returns:
        Tokens after ``ln_final`` (n, width).
    """
    hidden = embedded + text.positional_embedding[: embedded.shape[1]]
    for index, block in enumerate(text.transformer.resblocks, start=1):
        heads = scaled_dot_product_attention(*project_qkv(block.attn, block.ln_1(hidden)), is_causal=True)
        hidden = hidden + block.ls_1(project_out(block.attn, heads))
        hidden = hidden + block.ls_2(feed_forward(block.mlp, block.ln_2(hidden)))
        if after is not None:
            hidden = after(index, hidden)
    return text.ln_final(hidden[torch.arange(len(hidden), device=hidden.device), ends])
