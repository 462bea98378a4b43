"""What tiles ask of a run: anomalib's tiler as rows and columns, and images that are large enough."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from anomalib.data import Batch
from anomalib.data.utils.tiler import Tiler
from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_clipad.data.reading import read_size


def tiles_of(tiler: Tiler, size: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tiles that cover an image, whose neighbours start at most a stride apart.

    Args:
        tiler: Its tile size is the model's. How it enlarges images that its strides do not fill is of no account: the
            tiles are spread evenly.
        size: Height and width of the model's input in pixels.
        height: Height of the images in pixels.
        width: Width of the images in pixels.

    Raises:
        ValueError: If the tile size is another one, borders are to be removed, or the images are no larger than a tile.
    """
    tile = (tiler.tile_size_h, tiler.tile_size_w)
    if tile != (size, size):
        msg = (
            f"The tiler's tile_size is {tile[0]} x {tile[1]} and the model's image size is {size} x {size}: tiles are "
            f"seen at the model's size. Pass tile_size={size} to TilerConfigurationCallback, or image_size to ClipAD."
        )
        raise ValueError(msg)
    if tiler.remove_border_count:
        msg = f"remove_border_count has to be 0, as tiles are joined without seams; got {tiler.remove_border_count}."
        raise ValueError(msg)
    rows, columns = (
        1 + max(0, -(-(length - size) // stride))
        for length, stride in ((height, tiler.stride_h), (width, tiler.stride_w))
    )
    if (rows, columns) == (1, 1):
        msg = (
            f"The pre-processor delivers images of {height} x {width} pixels, a single tile of {size}. Pass one that "
            "delivers larger images, or ClipAD(tiles=[2, 2]) in place of TilerConfigurationCallback."
        )
        raise ValueError(msg)
    return rows, columns


class SourceSize(Callback):
    """Checks the images of a run by their files: a data module resizes them before they come in batches."""

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, *args: Any, **kwargs: Any
    ) -> None:
        """Check a batch."""
        del trainer, args, kwargs
        predictor = cast("Any", pl_module).preparation.predictor
        if predictor.grid is not None:
            for height, width in _sizes(batch):
                predictor.check_size(height, width)

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start


def _sizes(batch: Batch) -> Iterator[tuple[int, int]]:
    """Heights and widths of the files of a batch, or of its images where these are from no files."""
    paths = getattr(batch, "image_path", None)
    if not paths and batch.image is not None:
        height, width = batch.image.shape[-2:]
        yield height, width
    for path in paths or ():
        yield read_size(path)
