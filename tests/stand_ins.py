"""What stands in for a model where only what is around it is tested."""

from collections.abc import Iterable, Sequence

import numpy as np

from anomalib_clipad.images.picture import Picture
from anomalib_clipad.predictor.base import Predictor, Prepared, Scored, Shown, numbers
from anomalib_clipad.verdicts.normal_scores import Limits, NormalScores
from anomalib_clipad.vision.tile_grid import TileGrid


class Brightness(Predictor):
    """Scores an image by its mean; its map is its own grey."""

    class_name = None
    own_limits = Limits(0.5, 0.5)
    normalized = True
    normal: NormalScores | None = None
    grid: TileGrid | None = None
    aspect = 0.0

    def __init__(self, grid: TileGrid | None = None, aspect: float = 0.0) -> None:
        self.grid, self.aspect = grid, aspect

    def keep_normal(self, normal: NormalScores | None) -> None:
        self.normal = normal

    def score(self, images: Sequence[Prepared]) -> Scored:
        return numbers(self._raw(images))

    def fit(self, shown: Iterable[Shown], memory_size: int | None = None) -> None:
        self.references = tuple(one.identity for one in shown)

    def _prepare(self, picture: Picture) -> Prepared:
        return picture.levels.mean(axis=0)

    def _raw(self, images: Sequence[Prepared]) -> Scored:
        maps = np.stack(images)
        return Scored(maps.mean(axis=(1, 2)), maps)
