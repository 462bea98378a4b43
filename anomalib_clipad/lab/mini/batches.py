"""From pairs of pictures to a training batch: the same crop and colours for the flawless and the damaged part.

Every shape is fixed, every random number is drawn on the device, and nothing comes from the host (``torch.where`` of
two numbers would copy them), so that a training step can be one CUDA graph.
"""

from __future__ import annotations

from math import pi
from typing import NamedTuple

import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

from anomalib_clipad.parts.render import VISIBLE as VISIBLE_CHANGE

from .damage import KINDS
from .pool import Pairs

PATCH = 16
VISIBLE = 12 / 160**2
"""Share of the whole picture that a defect has to cover in a crop to make it abnormal."""
PASTED = 0.25
"""Share of the damaged pictures whose defect is pasted on here, not rendered."""
_FOREIGN = KINDS.index("contamination")


class Batch(NamedTuple):
    """Pictures and what is known of them; the first half is flawless, the second the same parts damaged.

    Attributes:
        images: Normalised crops (B, 3, size, size).
        coverage: Share of each patch that is defective (B, N), row by row.
        abnormal: 1 where enough of a defect is in the crop, 0 where nothing, NaN where only a trace (B,).
        kinds: Index of the pair's kind of defect (B,).
        corner: Patch row and column of the crop in the whole picture (2,).
    """

    images: Tensor
    coverage: Tensor
    abnormal: Tensor
    kinds: Tensor
    corner: Tensor


class Dice:
    """Random numbers, one for each of n pairs, on a device, from its default generator.

    Args:
        count: Number of pairs.
        device: Where the numbers are wanted.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.count, self.device = count, device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Numbers (n, *shape) in [low, high)."""
        return low + (high - low) * torch.rand(self.count, *shape, device=self.device)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """Whether something happens (n, *shape)."""
        return self.uniform(0, 1, *shape) < probability


class Augmentation(nn.Module):
    """Crops, turns and recolours pairs of pictures, and pastes defects on.

    Args:
        size: Height and width of the crops in pixels.
        full: Height and width of the whole picture, to whose scale the crops are brought.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, full: int) -> None:
        super().__init__()
        self.size, self.full = size, full
        self.register_buffer("mean", torch.tensor(OPENAI_DATASET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(OPENAI_DATASET_STD)[:, None, None])

    def forward(self, pairs: Pairs) -> Batch:
        """A batch of the pairs."""
        size = self.size
        dice = Dice(len(pairs.kinds), pairs.images.device)
        mask = pairs.masks.float()[:, None] / 255
        images = pairs.images.permute(0, 1, 4, 2, 3).flatten(1, 2) / 255  # (n, 2 * 3, side, side)
        grid = affine_grid(_crop(dice, mask, size, self.full), [dice.count, 1, size, size], align_corners=False)
        images, mask = (
            grid_sample(field, grid, padding_mode="reflection", align_corners=False) for field in (images, mask)
        )
        images, mask, pasted = _paste(dice, images.unflatten(1, (2, 3)), mask)
        kinds = pairs.kinds.masked_fill(pasted, _FOREIGN)
        images = _refocus(dice, _recolour(dice, images))
        images = images + torch.randn_like(images) * dice.uniform(0, 0.19, 1, 1, 1, 1).square()
        images = (images.clamp(0, 1).transpose(0, 1).flatten(0, 1) - self.mean) / self.std
        mask = torch.cat([torch.zeros_like(mask), mask])
        area = mask.sum(dim=(1, 2, 3))
        visible = area >= VISIBLE * self.full**2
        abnormal = visible.float().masked_fill((area > 0) & ~visible, torch.nan)
        corner = torch.randint((self.full - size) // PATCH + 1, (2,), device=dice.device)
        return Batch(images.contiguous(), avg_pool2d(mask, PATCH).flatten(1), abnormal, kinds.repeat(2), corner)


def _crop(dice: Dice, mask: Tensor, size: int, scaled: int) -> Tensor:
    """Affine maps (n, 2, 3) from a crop to its picture: turned, mirrored, zoomed a little, mostly around the defect."""
    full = mask.shape[-1]
    zoom = dice.uniform(-0.4, 0.3).exp() * scaled / full
    quarter = (4 * dice.uniform(0, 1)).floor() * pi / 2
    angle = quarter + dice.chance(0.5) * dice.uniform(-pi / 6, pi / 6)
    centre = torch.full((dice.count, 2), full / 2, device=dice.device)
    if size < scaled:
        reach = (size / 2 / zoom)[:, None]
        low, high = reach.clamp(max=full / 2), (full - reach).clamp(min=full / 2)
        centre = low + (high - low) * dice.uniform(0, 1, 2)
        defective = mask.flatten(1)
        some = defective.amax(dim=1) > 0
        places = (defective * dice.uniform(0, 1, full * full)).argmax(dim=1, keepdim=True)  # any defective pixel
        around = torch.cat([places % full, places // full], dim=1) + dice.uniform(-0.9, 0.9, 2) * reach
        centre = torch.where((some & dice.chance(0.85))[:, None], around.clamp(low, high), centre)
    mirrored = 1 - 2 * dice.chance(0.5).float()
    scale = size / full / zoom
    cos, sin = scale * angle.cos(), scale * angle.sin()
    linear = torch.stack([cos * mirrored, -sin, sin * mirrored, cos], dim=1).unflatten(1, (2, 2))
    return torch.cat([linear, (2 * centre / full - 1)[..., None]], dim=2)


def _paste(dice: Dice, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give some pairs another defect: a ragged patch of another picture, or of another place of the same one.

    Args:
        dice: Random numbers.
        images: Pairs (n, 2, 3, size, size).
        mask: Their defects (n, 1, size, size).

    Returns:
        Pairs and defects with some of them replaced, and which they are (n,).
    """
    size, shape = images.shape[-1], (-1, 1, 1, 1)
    flawless = images[:, 0]
    elsewhere = flawless.roll((size // 2, size // 3), (-2, -1))
    matter = torch.where(dice.chance(0.4, 1, 1, 1), elsewhere, flawless.roll(1, 0))
    matter = matter * dice.uniform(0.7, 1.3, 1, 1, 1) * dice.uniform(0.9, 1.1, 3, 1, 1)
    axis = torch.arange(size, device=dice.device)
    dx, dy = axis - dice.uniform(0, size, 1, 1, 1), axis[:, None] - dice.uniform(0, size, 1, 1, 1)
    angle = dice.uniform(0, pi, 1, 1, 1)
    radius, stretch = dice.uniform(1.0, 3.4, 1, 1, 1).exp(), dice.uniform(0, 2, 1, 1, 1).exp()
    along, across = angle.cos() * dx + angle.sin() * dy, angle.cos() * dy - angle.sin() * dx
    ragged = interpolate(torch.randn(dice.count, 1, size // 8, size // 8, device=dice.device), size, mode="bilinear")
    distance = torch.hypot(along / stretch, across) - radius * (1 + dice.uniform(0, 0.6).view(shape) * ragged)
    share = (-distance / dice.uniform(0.4, 3, 1, 1, 1)).sigmoid() * dice.uniform(0.25, 1.2, 1, 1, 1).clamp(max=1)
    damaged = flawless + share * (matter - flawless)
    changed = ((damaged - flawless).abs().amax(dim=1, keepdim=True) > VISIBLE_CHANGE).float()
    pasted = dice.chance(PASTED)
    damaged = torch.where(pasted.view(shape), damaged, images[:, 1])
    return torch.stack([flawless, damaged], dim=1), torch.where(pasted.view(shape), changed, mask), pasted


def _recolour(dice: Dice, images: Tensor) -> Tensor:
    """Other exposure, contrast, balance and sometimes no colour at all: (n, 2, 3, size, size)."""
    red, green, blue = images.split(1, dim=2)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    order = dice.uniform(0, 1, 3).argsort(dim=1)[:, None, :, None, None].expand_as(images)
    swapped = torch.where(dice.chance(0.3, 1, 1, 1, 1), images.gather(2, order), images)
    coloured = torch.where(dice.chance(0.2, 1, 1, 1, 1), grey, swapped)
    balance = dice.uniform(0.75, 1.25, 1, 1, 1, 1) * dice.uniform(0.9, 1.1, 1, 3, 1, 1)
    return coloured.clamp(min=1e-4) ** dice.uniform(-0.35, 0.35, 1, 1, 1, 1).exp() * balance


def _refocus(dice: Dice, images: Tensor) -> Tensor:
    """Half of the pairs softer or sharper: (n, 2, 3, size, size)."""
    pixels = images.flatten(0, 1)
    detail = (pixels - avg_pool2d(pixels, 3, 1, 1, count_include_pad=False)).view_as(images)
    return images + detail * dice.uniform(-0.8, 1.5, 1, 1, 1, 1) * dice.chance(0.5, 1, 1, 1, 1)
