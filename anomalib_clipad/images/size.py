"""The size of an image file, whose pixels are not read."""

from __future__ import annotations

from pathlib import Path

from anomalib_clipad.images.files import shown_size
from anomalib_clipad.images.formats import open_image


def read_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image file as it is shown, turned as EXIF says.

    Raises:
        Exception: What Pillow's plugins raise, each its own, where it is no image.
    """
    with Path(path).open("rb") as file, open_image(file) as image:
        return shown_size(image)
