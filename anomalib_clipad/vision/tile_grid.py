"""A grid of tiles: which images it can cover, before any of them is cut. Standard library only."""

from __future__ import annotations

from typing import NamedTuple

_PITCH = 0.75
"""Distance between neighbouring tiles in the images the default pre-processor delivers, in sides of a tile."""


class TileGrid(NamedTuple):
    """A grid of tiles, spread evenly over images of any size they can cover.

    Args:
        rows: Tiles above each other.
        columns: Tiles beside each other.
        size: Height and width of a tile, and of the model's input, in pixels.
        patch: Height and width of a patch in pixels.
        aligned: Compare a tile with the tiles of the same place in other images, not with all of theirs.
    """

    rows: int
    columns: int
    size: int
    patch: int
    aligned: bool = False

    @property
    def places(self) -> int:
        """Views of one image: 1 + T."""
        return 1 + self.rows * self.columns

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width in pixels at which neighbours overlap by about a quarter and start a whole patch apart."""
        pitch = max(round(_PITCH * self.size / self.patch), 1) * self.patch
        return self.size + (self.rows - 1) * pitch, self.size + (self.columns - 1) * pitch

    def check(self, height: int, width: int) -> None:
        """Check that the tiles cover images of a size, in pixels, and that no two are the same patches.

        Raises:
            ValueError: If they do not; the message says which numbers do.
        """
        for name, count, length in (("rows", self.rows, height), ("columns", self.columns, width)):
            least, most = -(-length // self.size), (length - self.size) // self.patch + 1
            if not least <= count <= most:
                fitting = f"{least} to {most} would" if least <= most else "none would"
                msg = (
                    f"{count} {name} of tiles of {self.size} pixels do not fit images of {height} x {width} pixels, "
                    f"{fitting}. The default pre-processor delivers {self.canvas[0]} x {self.canvas[1]}."
                )
                raise ValueError(msg)

    def check_source(self, height: int, width: int) -> None:
        """Check that images, before they are resized, have at least a patch of pixels for each tile.

        Raises:
            ValueError: If they have less; the message says how many tiles work.
        """
        if height // self.rows < self.patch or width // self.columns < self.patch:
            most = [min(self.rows, max(height // self.patch, 1)), min(self.columns, max(width // self.patch, 1))]
            msg = (
                f"An image of {height} x {width} pixels is too small for tiles=[{self.rows}, {self.columns}]: a tile "
                f"would show less of it than a patch of {self.patch} pixels. At most tiles={most} works."
            )
            raise ValueError(msg)

    def check_places(self, height: int, width: int, aspect: float) -> None:
        """Check that, where ``aligned``, tiles of an image show the same places as those of the normal images.

        All are stretched to one size, so it takes images of the same shape; what a patch covers is allowed for.

        Args:
            height: Height of the image in pixels, before it is resized.
            width: Its width.
            aspect: Width over height of the normal images; 0 if that is not known.

        Raises:
            ValueError: If the image is of another shape.
        """
        if not self.aligned or not aspect:
            return
        ratio = width / height / aspect
        if max(ratio, 1 / ratio) - 1 > self.patch / max(self.canvas):
            msg = (
                f"An image of {height} x {width} pixels (width / height {width / height:.2f}) is of another shape than "
                f"the normal images ({aspect:.2f}): with aligned, tiles of the same place would show different parts. "
                "Frame all images alike, or leave out aligned."
            )
            raise ValueError(msg)
