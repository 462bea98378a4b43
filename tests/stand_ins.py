"""What stands in for a model where only what is around it is tested."""

from anomalib_clipad.lab.fuzz.stand_in import Grey
from anomalib_clipad.vision.tile_grid import TileGrid


class Brightness(Grey):
    """The same, of no class; it may have tiles."""

    def __init__(self, grid: TileGrid | None = None, aspect: float = 0.0) -> None:
        super().__init__(None)
        self.grid, self.aspect = grid, aspect
