"""The staged dual path: CLIP's vision transformer with a second, training-free path (paper section 3.3).

The ordinary path h is CLIP as it is. The surgery path s runs beside it through the same weights: V-V attention, no
feed-forward network, no residual input, restarted at each of four stages. The open_clip tower is only read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, scaled_dot_product_attention

from anomalib_clipad.transformer import feed_forward, project_out, project_qkv

from .choices import Tap

if TYPE_CHECKING:
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

STAGES = 4


class StageFeatures(NamedTuple):
    """What one stage yields, before ``ln_post``.

    Attributes:
        surgery: Surgery stream of the patches (B, N, width).
        ordinary: Tapped ordinary stream (B, 1 + N, width), or only its CLS token (B, 1, width).
        output: Output of the stage's last block for the patches (B, N, width), where it is wanted.
    """

    surgery: Tensor
    ordinary: Tensor
    output: Tensor | None = None


def embed_patches(visual: VisionTransformer, images: Tensor) -> Tensor:
    """Tokens (B, 1 + N, width) that enter the first block, from normalised images (B, 3, H, W)."""
    patches = visual.conv1(images.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
    cls = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
    tokens = torch.cat([cls, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    return visual.ln_pre(tokens)


def dual_path(
    visual: VisionTransformer, images: Tensor, tap: Tap = "reference", patches: bool = False, outputs: bool = False
) -> list[StageFeatures]:
    """Run both paths and tap them at the end of the four stages.

    Args:
        visual: open_clip ``VisionTransformer`` whose number of blocks is a multiple of four.
        images: Normalised images (B, 3, H, W) of the tower's size.
        tap: Where the ordinary stream of the first three stages is read: ``"block"`` after the stage's last block;
            ``"reference"`` (of all published results) after the attention of the block that follows.
        patches: Also tap the ordinary stream's patches, which SDP+ needs. Otherwise only CLS, and the last block
            computes no more of it.
        outputs: Also keep the patches as the stage's last block leaves them, which references need.

    Returns:
        Features of the four stages, first to last.

    Example:
        A tower of four blocks, so one block per stage, on images of 2 x 2 patches.

        >>> from open_clip.transformer import VisionTransformer
        >>> visual = VisionTransformer(32, patch_size=16, width=16, layers=4, heads=2, mlp_ratio=2, output_dim=8).eval()
        >>> with torch.no_grad():
        ...     stages = dual_path(visual, torch.randn(5, 3, 32, 32))
        >>> [tuple(stage.surgery.shape) for stage in stages]
        [(5, 4, 16), (5, 4, 16), (5, 4, 16), (5, 4, 16)]
        >>> project_features(visual, stages[-1].surgery).shape
        torch.Size([5, 4, 8])
    """
    blocks = visual.transformer.resblocks
    stage_length = len(blocks) // STAGES
    tapped = slice(None) if patches else slice(1)
    ordinary = embed_patches(visual, images)
    surgeries: list[Tensor] = []
    ordinaries: list[Tensor] = []
    kept: list[Tensor | None] = []
    for index, block in enumerate(blocks):
        starts_stage = index % stage_length == 0
        last = index == len(blocks) - 1
        read = tapped if last and not outputs else slice(None)  # nothing reads the other tokens of the last block
        attended, surgered = _attend_twice(block, ordinary, read)
        ordinary = attended.add_(ordinary[:, read])
        if starts_stage:
            surgeries.append(surgered)
            if tap == "reference" and index > 0:
                ordinaries.append(ordinary[:, tapped])
        else:
            surgeries[-1].add_(surgered)
        ordinary = block.ls_2(feed_forward(block.mlp, block.ln_2(ordinary))).add_(ordinary)
        if last or (tap == "block" and (index + 1) % stage_length == 0):
            ordinaries.append(ordinary[:, tapped])
        if (index + 1) % stage_length == 0:
            kept.append(ordinary[:, 1:] if outputs else None)
    return [StageFeatures(*features) for features in zip(surgeries, ordinaries, kept, strict=True)]


def ordinary_path(
    visual: VisionTransformer, images: Tensor, after: Callable[[int, Tensor], Tensor] | None = None
) -> list[Tensor]:
    """The ordinary path alone: outputs (B, 1 + N, width) of the blocks that end the four stages.

    Args:
        visual: As in ``dual_path``.
        images: As in ``dual_path``.
        after: What becomes of a block's output, by the number of the block, counted from 1.
    """
    blocks = visual.transformer.resblocks
    tokens = embed_patches(visual, images)
    outputs = []
    for number, block in enumerate(blocks, start=1):
        tokens = _through(block, tokens)
        if after is not None:
            tokens = after(number, tokens)
        if number % (len(blocks) // STAGES) == 0:
            outputs.append(tokens)
    return outputs


def value_path(visual: VisionTransformer, images: Tensor, across: bool = False) -> tuple[list[Tensor], Tensor]:
    """The ordinary path with V-V attention from the block that ends the first stage on, and CLS without it.

    Args:
        visual: As in ``dual_path``.
        images: As in ``dual_path``.
        across: As of ``_attend_by_values``.

    Returns:
        Outputs (B, 1 + N, width) of the blocks that end the four stages, and the CLS token (B, 1, width) of the
        ordinary path as it is.
    """
    blocks, outputs = visual.transformer.resblocks, []
    length = len(blocks) // STAGES
    tokens = embed_patches(visual, images)
    for block in blocks[: length - 1]:
        tokens = _through(block, tokens)
    ordinary = tokens
    for number, block in enumerate(blocks[length - 1 :], start=length):
        ordinary, tokens = _through(block, ordinary), _through(block, tokens, partial(_attend_by_values, across=across))
        if number % length == 0:
            outputs.append(tokens)
    return outputs, ordinary[:, :1]


def _through(
    block: ResidualAttentionBlock,
    tokens: Tensor,
    attend: Callable[[Tensor, Tensor, Tensor], Tensor] = scaled_dot_product_attention,
) -> Tensor:
    """Tokens (B, N, width) after a block, with an attention of queries, keys and values (B, heads, N, ...)."""
    attended = project_out(block.attn, attend(*project_qkv(block.attn, block.ln_1(tokens))))
    tokens = block.ls_1(attended).add_(tokens)
    return block.ls_2(feed_forward(block.mlp, block.ln_2(tokens))).add_(tokens)


def _attend_by_values(query: Tensor, key: Tensor, value: Tensor, across: bool) -> Tensor:
    """Values (B, heads, N, ...) attend to values: among the tokens of an image, or ``across`` the images of a batch."""
    del query, key
    values = value.transpose(0, 2) if across else value
    attended = scaled_dot_product_attention(values, values, values)
    return attended.transpose(0, 2) if across else attended


def _attend_twice(block: ResidualAttentionBlock, tokens: Tensor, read: slice) -> tuple[Tensor, Tensor]:
    """One block's two attentions: q-k over the tokens that are read, v-v over the patches."""
    query, key, value = project_qkv(block.attn, block.ln_1(tokens), queries=read)
    attended = scaled_dot_product_attention(query, key, value)
    surgered = scaled_dot_product_attention(value[:, :, 1:], value, value)
    return block.ls_1(project_out(block.attn, attended)), block.ls_1(project_out(block.attn, surgered))


def project_tokens(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """Map tokens (B, N, width) into the space shared with text: (B, N, D), float32, of any length."""
    return (visual.ln_post(tokens.to(visual.proj.dtype)) @ visual.proj).float()


def project_features(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """``project_tokens``, L2-normalised."""
    return normalize(project_tokens(visual, tokens), dim=-1)
