"""Images under heat maps, as they were read: anomalib's visualizer opens the file anew, and reads it otherwise."""

from __future__ import annotations

from typing import Any

import anomalib.visualization.image.visualizer as host
from anomalib.data import ImageItem, NumpyImageItem
from PIL import Image

from anomalib_clipad.data.reading import UnreadableImageError, read_image

from .statistics import required

host_visualize = host.visualize_image_item


def visualize(item: ImageItem | NumpyImageItem, *args: Any, **options: Any) -> Image.Image | None:
    """``visualize_image_item``, with the image in the item; anomalib would take another from the file."""
    path = item.image_path
    if path and isinstance(item, ImageItem):
        try:
            image = read_image(path, as_tensor=True)
        except UnreadableImageError:  # the data set has its images from elsewhere; this one is normalised
            shown = required(item.image, "image")
            image = shown - shown.min()
            image = image / image.max().clamp(min=1e-6)
        item = item.update(in_place=False, image=image, image_path=None)
    return host_visualize(item, *args, **options)
