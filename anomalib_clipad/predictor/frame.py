"""What a pre-processing shows of an image: the whole of it, or something from which no way leads back to its pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

WHOLE = "whole"
"""The whole image, stretched to the model's size: a map, enlarged, lies on the image."""
_HOMES = {"anomalib_clipad", "torch", "torchvision"}
"""Whose transforms are known here; those of others by the same names may do anything."""
_OF_VALUES = {"Identity", "Normalize", "Standardize", "Grayscale", "RGB", "ToDtype", "ToImage", "ConvertImageDtype"}
"""Transforms that leave every pixel where it is."""
_RESIZES = {"Resize", "PillowResize", "MatrixResize"}


def frame(transform: Any) -> str:
    """What a pre-processing shows of an image.

    Args:
        transform: torchvision's, or modules of torch or of this package; ``None`` for none.

    Returns:
        ``WHOLE``; else what stands in its way, such as ``CenterCrop``, ``Resize(240) keeps the aspect``, or the name of
        a transform that is not known here.

    Example:
        >>> from torchvision.transforms.v2 import CenterCrop, Compose, Resize
        >>> frame(Resize((240, 240)))
        'whole'
        >>> frame(Compose([Resize(256), CenterCrop(240)]))
        'Resize(256) keeps the aspect, CenterCrop'
    """
    return ", ".join(_obstacles(transform)) or WHOLE


def _obstacles(transform: Any) -> Iterator[str]:
    """What is not, or may not be, the whole image stretched to one size."""
    if transform is None:
        return
    name = getattr(transform, "__name__", type(transform).__name__)
    known = type(transform).__module__.split(".")[0] in _HOMES
    if known and name in {"Compose", "Sequential"}:
        for part in transform.transforms if name == "Compose" else transform:
            yield from _obstacles(part)
    elif known and name in _RESIZES:
        size = transform.size
        sides = tuple(size) if isinstance(size, Sequence) else (size,)
        if len(sides) != 2:
            yield f"{name}({sides[0]}) keeps the aspect"
    elif not (known and name in _OF_VALUES):
        yield str(name)
