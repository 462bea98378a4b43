"""A model's pre-processing for exported graphs: torchvision's transforms as plain modules."""

from __future__ import annotations

from copy import deepcopy

from torch import nn
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_clipad.host.pre_processor import interpolation_of
from anomalib_clipad.vision.matrix_resize import MatrixResize, Standardize
from anomalib_clipad.vision.resize import PillowResize


def exportable(transform: nn.Module) -> nn.Module:
    """The same pre-processing with every antialiased resize as matrix products.

    Raises:
        ValueError: If a resize cannot be written so.
    """
    if isinstance(transform, Compose):
        return nn.Sequential(*(exportable(part) for part in transform.transforms))
    if isinstance(transform, Normalize):
        return Standardize(transform.mean, transform.std)
    if not isinstance(transform, Resize) or not transform.antialias:
        return deepcopy(transform)
    if transform.size is None or len(transform.size) != 2:
        msg = (
            f"The pre-processor's {transform} keeps the aspect, which an exported graph cannot; give height and width."
        )
        raise ValueError(msg)
    interpolation = str(interpolation_of(transform).value)
    return MatrixResize(transform.size, interpolation, isinstance(transform, PillowResize))
