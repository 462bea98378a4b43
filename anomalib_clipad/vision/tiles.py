"""Tiles: a large image cut into overlapping squares of the model's size, and their maps joined without seams."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from .matrix_resize import MatrixResize
from .tile_grid import TileGrid


class Tiles(TileGrid):
    """A grid of tiles, spread evenly over images of any size they can cover.

    The views of an image are the whole of it, at the size of a tile, and its tiles, row by row. Batches of views are
    ordered by place: first the wholes of all B images, then the first tile of each, and so on, V = (1 + T) B in all.

    Arguments are those of ``TileGrid``.

    Example:
        Joining what was cut gives it back.

        >>> tiles = Tiles(rows=2, columns=3, size=64, patch=16)
        >>> tiles.canvas
        (112, 160)
        >>> image = torch.rand(1, 3, *tiles.canvas)
        >>> pieces = tiles.cut(image)
        >>> pieces.shape
        torch.Size([6, 3, 64, 64])
        >>> torch.allclose(tiles.join(pieces[:, 0], *tiles.canvas), image[:, 0])
        True
    """

    __slots__ = ()

    # Images

    def views(self, images: Tensor) -> Tensor:
        """Whole and tiles (V, 3, S, S) of normalised images (B, 3, H, W)."""
        whole = MatrixResize([self.size, self.size], whole_levels=False)(images)
        return torch.cat([whole, self.cut(images)])

    def cut(self, images: Tensor) -> Tensor:
        """Tiles (T B, 3, S, S) of images (B, 3, H, W)."""
        height, width = images.shape[-2:]
        tops, lefts = self._starts(self.rows, height), self._starts(self.columns, width)
        side = self.size
        return torch.cat([images[..., top : top + side, left : left + side] for top in tops for left in lefts])

    # Maps and scores

    def join(self, maps: Tensor, height: int, width: int) -> Tensor:
        """Maps (B, H, W) of the tiles' maps (T B, S, S): where tiles overlap, one fades into the other."""
        grid = maps.unflatten(0, (self.rows, self.columns, -1))  # (rows, columns, B, S, S)
        bands = self._faded(grid.unbind(1), width)  # (rows, B, S, W)
        return self._faded([band.mT for band in bands], height).mT

    def merge_maps(self, maps: Tensor, height: int, width: int) -> Tensor:
        """Maps (B, H, W) of the views' maps (V, S, S): the mean of the whole's, enlarged, and the joined tiles'."""
        places = maps.unflatten(0, (self.places, -1))
        enlarged = interpolate(places[0].unsqueeze(1), size=(height, width), mode="bilinear").squeeze(1)
        return (enlarged + self.join(places[1:].flatten(0, 1), height, width)) / 2

    def merge_scores(self, scores: Tensor) -> Tensor:
        """Scores (B,) of the views' scores (V,): the mean of the whole's and the largest of the tiles'."""
        places = scores.unflatten(0, (self.places, -1))
        return (places[0] + places[1:].amax(dim=0)) / 2

    # Tokens

    def group(self, tokens: Tensor) -> list[Tensor]:
        """Sort the tokens of views by what is compared with each other.

        Args:
            tokens: Patch tokens of the views (V, 4, N, width).

        Returns:
            One (B, 4, n N, width) for the wholes, n = 1, and one for all tiles, n = T; where ``aligned``, one for each
            place, n = 1.
        """
        places = tokens.unflatten(0, (self.places, -1)).split(self._groups)
        return [group.movedim(0, 2).flatten(2, 3) for group in places]

    def ungroup(self, values: Sequence[Tensor]) -> Tensor:
        """Values (V, N) of the views' patches from those of each group (B, n N)."""
        places = [group.unflatten(1, (n, -1)).movedim(1, 0) for group, n in zip(values, self._groups, strict=True)]
        return torch.cat(places).flatten(0, 1)

    @property
    def _groups(self) -> list[int]:
        return [1] * self.places if self.aligned else [1, self.places - 1]

    def _starts(self, count: int, length: int) -> list[int]:
        """First pixels of tiles along an axis; a symbolic length stays symbolic."""
        return [place * (length - self.size) // max(count - 1, 1) for place in range(count)]

    def _faded(self, pieces: Sequence[Tensor], length: int) -> Tensor:
        """Pieces (..., S), side by side along the last axis, as one (..., length)."""
        starts = self._starts(len(pieces), length)
        pixels = torch.arange(length, device=pieces[0].device) + 0.5
        hats = [torch.minimum(pixels - start, start + self.size - pixels).clamp(min=0) for start in starts]
        total = torch.stack(hats).sum(dim=0)  # hats over their sum: 1 alone, and linear ramps where two overlap
        joined = torch.zeros(())
        for piece, start, hat in zip(pieces, starts, hats, strict=True):
            end = start + self.size
            joined = joined + pad(piece * (hat / total)[start:end], (start, length - end))
        return joined
