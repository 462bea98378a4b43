"""From pairs of pictures to a training batch: the same crop and colours for the flawless and the damaged part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample
from torchvision.transforms.functional import normalize

from .pool import Shard

PATCH = 16
VISIBLE = 12 / 160**2
"""Share of the whole picture that a defect has to cover in a crop to make it abnormal."""
_GREY = (0.299, 0.587, 0.114)


class Batch(NamedTuple):
    """Pictures and what is known of them; the first half is flawless, the second the same parts damaged.

    Attributes:
        images: Normalised crops (B, 3, size, size).
        coverage: Share of each patch that is defective (B, N), row by row.
        abnormal: 1 where enough of a defect is in the crop, 0 where nothing, NaN where only a trace (B,).
        kinds: Index of the pair's kind of defect (B,).
        corner: Patch row and column of the crop in the whole picture.
    """

    images: Tensor
    coverage: Tensor
    abnormal: Tensor
    kinds: Tensor
    corner: tuple[int, int]


class Dice:
    """Random numbers, one for each of n pairs, on a device.

    Args:
        seed: Seed.
        count: Number of pairs.
        device: Where the numbers are wanted.
    """

    def __init__(self, seed: int, count: int, device: torch.device) -> None:
        self.generator = Generator(device).manual_seed(seed)
        self.count, self.device = count, device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Numbers (n, *shape) in [low, high)."""
        drawn = torch.rand(self.count, *shape, generator=self.generator, device=self.device)
        return low + (high - low) * drawn

    def chance(self, probability: float) -> Tensor:
        """Whether something happens (n,)."""
        return self.uniform(0, 1) < probability


def make_batch(seed: int, shard: Shard, pairs: NDArray[np.int64], size: int, full: int) -> Batch:
    """Crop, turn and recolour pairs of a shard, on its device.

    Args:
        seed: Seed of the augmentation.
        shard: Where the pictures are.
        pairs: Which pairs.
        size: Height and width of the crops in pixels.
        full: Height and width of the whole picture, to whose scale the crops are brought.
    """
    chosen = torch.from_numpy(pairs).to(shard.images.device)
    dice = Dice(seed, len(pairs), chosen.device)
    mask = shard.masks[chosen].float()[:, None] / 255
    images = shard.images[chosen].permute(0, 1, 4, 2, 3).flatten(1, 2) / 255  # (n, 2 * 3, side, side)
    grid = affine_grid(_crop(dice, mask, size, full), [len(pairs), 1, size, size], align_corners=False)
    images, mask = (
        grid_sample(field, grid, padding_mode="reflection", align_corners=False) for field in (images, mask)
    )
    images = _recolour(dice, images.unflatten(1, (2, 3)))
    grain = torch.randn(images.shape, generator=dice.generator, device=dice.device)
    images = images + grain * dice.uniform(0, 0.19, 1, 1, 1, 1).square()
    images = images.clamp(0, 1).transpose(0, 1).flatten(0, 1)
    mask = torch.cat([torch.zeros_like(mask), mask])
    area = mask.sum(dim=(1, 2, 3))
    abnormal = torch.where(area >= VISIBLE * full**2, 1.0, torch.where(area > 0, torch.nan, 0.0))
    spare = (full - size) // PATCH + 1
    row, column = np.random.default_rng(seed).integers(spare, size=2).tolist()
    return Batch(
        normalize(images, list(OPENAI_DATASET_MEAN), list(OPENAI_DATASET_STD)).contiguous(),
        avg_pool2d(mask, PATCH).flatten(1),
        abnormal,
        shard.kinds[chosen].repeat(2),
        (row, column),
    )


def _crop(dice: Dice, mask: Tensor, size: int, scaled: int) -> Tensor:
    """Affine maps (n, 2, 3) from a crop to its picture: turned, mirrored, zoomed a little, mostly around the defect."""
    full = mask.shape[-1]
    zoom = dice.uniform(-0.4, 0.3).exp() * scaled / full
    quarter = (4 * dice.uniform(0, 1)).floor() * np.pi / 2
    angle = quarter + torch.where(dice.chance(0.5), dice.uniform(-np.pi / 6, np.pi / 6), 0.0)
    centre = torch.full((len(mask), 2), full / 2, device=mask.device)
    if size < scaled:
        reach = (size / 2 / zoom)[:, None]
        low, high = reach.clamp(max=full / 2), (full - reach).clamp(min=full / 2)
        centre = low + (high - low) * dice.uniform(0, 1, 2)
        defective = mask.flatten(1)
        some = defective.sum(dim=1) > 0
        places = torch.multinomial(defective + (~some)[:, None], 1, generator=dice.generator)
        around = torch.cat([places % full, places // full], dim=1) + dice.uniform(-0.9, 0.9, 2) * reach
        centre = torch.where((some & dice.chance(0.85))[:, None], around.clamp(low, high), centre)
    mirrored = torch.where(dice.chance(0.5), -1.0, 1.0)
    scale = size / full / zoom
    cos, sin = scale * angle.cos(), scale * angle.sin()
    linear = torch.stack([cos * mirrored, -sin, sin * mirrored, cos], dim=1).unflatten(1, (2, 2))
    return torch.cat([linear, (2 * centre / full - 1)[..., None]], dim=2)


def _recolour(dice: Dice, images: Tensor) -> Tensor:
    """Other exposure, contrast, balance and sometimes no colour at all: (n, 2, 3, size, size)."""
    shape = (-1, 1, 1, 1, 1)
    grey = (images * torch.tensor(_GREY, device=images.device)[:, None, None]).sum(dim=2, keepdim=True)
    order = dice.uniform(0, 1, 3).argsort(dim=1)[:, None, :, None, None].expand_as(images)
    swapped = torch.where(dice.chance(0.3).view(shape), images.gather(2, order), images)
    coloured = torch.where(dice.chance(0.2).view(shape), grey, swapped)
    balance = dice.uniform(0.75, 1.25).view(shape) * dice.uniform(0.9, 1.1, 3).view(-1, 1, 3, 1, 1)
    return coloured.clamp(min=1e-4) ** dice.uniform(-0.35, 0.35).exp().view(shape) * balance
