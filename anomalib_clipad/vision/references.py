"""Patch tokens compared with those of other images: few-shot and mutual (docs/algorithm.md, References).

Tokens are outputs of the blocks that end the four stages, without CLS: (B, 4, N, width). The few-shot distance is that
of APRIL-GAN (arXiv 2305.17382), mutual scoring and rescoring are those of MuSc (ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isqrt

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, layer_norm, normalize

RADII = (1, 3, 5)
"""Patches along an axis of the neighbourhoods over which mutual scoring averages features."""
NEIGHBOURS = (1, 2, 3)
"""How many images, itself included, an image's score is averaged over, on objects (MVTec AD)."""
_SMALLEST = 0.3
"""Share of the other images whose distances make a patch's mutual score: the nearest ones."""
_ROWS = 1024
"""Memory patches that are compared at once."""
_PRODUCTS = 2**23
"""Elements of one tile of the matrix of all cosines of a pool."""


def nearest_distance(tokens: Tensor, memory: Tensor) -> Tensor:
    """Distance of each patch to the nearest patch of the memory, stage by stage.

    Args:
        tokens: Patch tokens (B, 4, N, width).
        memory: Patch tokens of normal images (4, M, width), of unit length.

    Returns:
        Cosine distances, 1 - cosine: (B, 4, N), float32.

    Example:
        One stage; the second patch points away from the only one that is remembered.

        >>> nearest_distance(torch.tensor([[[[3.0, 0.0], [0.0, -1.0]]]]), torch.tensor([[[0.0, 1.0]]]))
        tensor([[[1., 2.]]])
    """
    stages = zip(tokens.unbind(dim=1), memory, strict=True)
    return torch.stack([1 - largest_cosine(stage, rows) for stage, rows in stages], dim=1)


def largest_cosine(tokens: Tensor, rows: Tensor) -> Tensor:
    """Largest cosine (B, N) of each token (B, N, width) of one stage with unit vectors (M, width)."""
    queries = tokens.float().flatten(0, 1)
    tiles = (rows,) if torch.compiler.is_compiling() else rows.split(_ROWS)  # a graph has any number of rows
    largest = (queries @ tiles[0].T).amax(dim=-1)
    for tile in tiles[1:]:
        largest = torch.maximum(largest, (queries @ tile.T).amax(dim=-1))
    lengths = queries.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    return (largest / lengths).unflatten(0, (tokens.shape[0], -1))


def neighbourhood_features(tokens: Tensor, radius: int) -> Tensor:
    """Features of one stage that mutual scoring compares.

    LayerNorm over width and grid together, the mean over the neighbourhood, where patches beyond the border count as
    zero, then unit length.

    Args:
        tokens: Patch tokens (n, N, width) of a square grid.
        radius: Patches along an axis of the neighbourhood, odd.

    Returns:
        Unit vectors (n, N, width), float32.
    """
    side = isqrt(tokens.shape[1])
    grid = tokens.float().mT.unflatten(-1, (side, side))  # (n, width, rows, columns)
    means = avg_pool2d(layer_norm(grid, grid.shape[1:]), radius, stride=1, padding=radius // 2)
    return normalize(means.flatten(2).mT, dim=-1)


def mutual_scores(tokens: Tensor, radii: Sequence[int] = RADII) -> Tensor:
    """How far each patch is from its nearest patches in the other images of a pool.

    Args:
        tokens: Patch tokens of all images (n, 4, N, width), n >= 2, on a square grid.
        radii: Neighbourhoods.

    Returns:
        Mean over stages and radii of the mean of the smallest 30 % of the n - 1 Euclidean distances: (n, N).

    Raises:
        ValueError: If there is only one image.
    """
    count = len(tokens)
    if count < 2:
        msg = f"Mutual scoring compares images with each other; got {count} image. It takes at least 2."
        raise ValueError(msg)
    total = torch.zeros(count, tokens.shape[2], device=tokens.device)
    for features in _all_features(tokens, radii):
        cosine = nearest_in_each(features)
        cosine.diagonal(dim1=0, dim2=2).fill_(-1)  # itself: of all, the farthest
        total += _mean_of_smallest(cosine, count - 1)
    return total / (tokens.shape[1] * len(radii))


def mutual_rows(tokens: Tensor, rows: range, radii: Sequence[int] = RADII) -> Tensor:
    """``mutual_scores`` of some of the images only: those of others are not needed for them.

    Args:
        tokens: Patch tokens of all images (n, 4, N, width), n >= 2.
        rows: Which images.
        radii: Neighbourhoods.

    Returns:
        Scores (len(rows), N).
    """
    total = torch.zeros(len(rows), tokens.shape[2], device=tokens.device)
    for features in _all_features(tokens, radii):
        own = features[rows.start : rows.stop]
        cosine = torch.stack([(own @ other.T).amax(dim=-1) for other in features], dim=-1)  # (rows, N, n)
        cosine[torch.arange(len(rows)), :, torch.arange(rows.start, rows.stop)] = -1  # itself: of all, the farthest
        total += _mean_of_smallest(cosine, len(tokens) - 1)
    return total / (tokens.shape[1] * len(radii))


def scores_against(tokens: Tensor, pool: Tensor, radii: Sequence[int] = RADII) -> Tensor:
    """Mutual scores of images that are not in the pool themselves.

    Args:
        tokens: Their patch tokens (B, 4, N, width).
        pool: Patch tokens of the images they are compared with (n, 4, N, width).
        radii: Neighbourhoods.

    Returns:
        Scores (B, N), as if each image alone had joined the pool.
    """
    total = torch.zeros(len(tokens), tokens.shape[2], device=tokens.device)
    for features, others in zip(_all_features(tokens, radii), _all_features(pool, radii), strict=True):
        cosine = torch.cat([(features @ other.mT).amax(dim=-1, keepdim=True) for other in others], dim=-1)
        total += _mean_of_smallest(cosine, len(pool))
    return total / (tokens.shape[1] * len(radii))


def rescore(peak: Tensor, cls: Tensor, neighbours: Sequence[int] = NEIGHBOURS) -> Tensor:
    """Image scores, each averaged with those of the images that look most alike (MuSc's RsCIN).

    Args:
        peak: Score of each image (n,).
        cls: Projected, L2-normalised CLS features (n, D).
        neighbours: Numbers of images to average over, each image itself among them; the mean of all is taken.

    Returns:
        Scores (n,) in [0, 1].
    """
    scores = ranged(peak)
    similar, images = (cls @ cls.T).topk(min(max(neighbours), len(peak)))  # (n, k), the most alike first
    rescored = [
        (similar[:, :count] * scores[images[:, :count]]).sum(dim=1) / similar[:, :count].sum(dim=1)
        for count in neighbours
    ]
    return torch.stack(rescored).mean(dim=0)


def ranged(values: Tensor) -> Tensor:
    """Min-max of values (n,); 0 where they are all equal."""
    low, high = values.aminmax()
    return (values - low) / torch.where(high > low, high - low, torch.ones_like(high))


def leave_one_out(tokens: Tensor) -> Tensor:
    """Few-shot distances of normal images, each to all the others.

    The product of two images serves both of them, and no more than the nearest so far is kept, so any number of images
    judge each other.

    Args:
        tokens: Patch tokens (k, 4, N, width), k >= 2.

    Returns:
        Sum of the four stages' distances (k, N).
    """
    count, _, patches, _ = tokens.shape
    images = max(1, _PRODUCTS // patches**2)
    total = torch.zeros(count, patches, device=tokens.device)
    for stage in tokens.transpose(0, 1):
        units = normalize(stage.float(), dim=-1)
        nearest = torch.full_like(total, -1)
        for index, own in enumerate(units):
            for first in range(index + 1, count, images):
                others = slice(first, first + images)
                cosine = (units[others].flatten(0, 1) @ own.T).unflatten(0, (-1, patches))  # (others, theirs, own)
                nearest[index] = torch.maximum(nearest[index], cosine.amax(dim=(0, 1)))
                nearest[others] = torch.maximum(nearest[others], cosine.amax(dim=2))
        total += 1 - nearest
    return total


def nearest_in_each(features: Tensor) -> Tensor:
    """Largest cosine of each patch with the patches of each image: (n, N, n), from unit vectors (n, N, width).

    The product of two images serves both of them, so only half of all is computed.
    """
    count, patches, _ = features.shape
    nearest = features.new_empty(count, patches, count)
    images = max(1, _PRODUCTS // patches**2)
    for index, own in enumerate(features):
        for first in range(index, count, images):
            others = slice(first, min(first + images, count))
            cosine = (features[others].flatten(0, 1) @ own.T).unflatten(0, (-1, patches))  # (others, theirs, own)
            nearest[index, :, others] = cosine.amax(dim=1).T
            nearest[others, :, index] = cosine.amax(dim=2)
    return nearest


def _all_features(tokens: Tensor, radii: Sequence[int]) -> Iterator[Tensor]:
    """Features (n, N, width) of every radius and stage."""
    for radius in radii:
        for stage in tokens.unbind(dim=1):
            yield neighbourhood_features(stage, radius)


def _mean_of_smallest(cosine: Tensor, others: int) -> Tensor:
    """Mean Euclidean distance (n, N) to the nearest of the other images, by their largest cosines (n, N, others)."""
    nearest = cosine.topk(max(1, int(_SMALLEST * others)), dim=-1).values
    return (2 - 2 * nearest).clamp(min=0).sqrt().mean(dim=-1)
