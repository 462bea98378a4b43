"""Pre-processing: the reference's resize and CLIP's normalisation, the same in every stage and in a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.transform import get_exportable_transform
from PIL.Image import Resampling
from torchvision.transforms.v2 import Compose, InterpolationMode, Normalize, Resize

from anomalib_clipad.vision.resize import PillowResize

_OURS = "clip_ad"


def interpolation_of(resize: Resize) -> InterpolationMode:
    """How a transform interpolates, however torchvision was told: by its own value, by name, or by Pillow's number."""
    given = resize.interpolation
    return InterpolationMode(Resampling(given).name.lower() if isinstance(given, int) else given)


def lasting(pre_processor: Any) -> Any:
    """The same pre-processor, ready for a checkpoint: anomalib cannot read Pillow's numbers of interpolations again."""
    for resize in _resizes(getattr(pre_processor, "transform", None)):
        resize.interpolation = interpolation_of(resize)
    return pre_processor


def _resizes(transform: Any) -> Iterator[Resize]:
    if isinstance(transform, Resize):
        yield transform
    for part in getattr(transform, "transforms", ()):
        yield from _resizes(part)


class ClipADPreProcessor(PreProcessor):
    """Bicubic resize to one size, aspect not kept, as Pillow does it, and CLIP's normalisation.

    Args:
        size: Height and width in pixels.
        mean: Mean per channel, for values in [0, 1].
        std: Standard deviation per channel.
    """

    def __init__(self, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(Compose([PillowResize(size), Normalize(list(mean), list(std))]))

    def checkpoint_config(self) -> dict[str, Any]:
        """The transform in torchvision's own classes, which checkpoints can hold, and that it is this one."""
        resize, normalize = cast("Compose", self.transform).transforms
        plain = Resize(resize.size, InterpolationMode.BICUBIC, antialias=True)
        return {**PreProcessor(Compose([plain, normalize])).checkpoint_config(), _OURS: True}

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Take over a transform that is not this one; of this one, which follows from the backbone, the size."""
        ours = cast("Compose", self.transform)
        super().load_checkpoint_config(config)
        if config.get(_OURS):
            size = cast("Compose", self.transform).transforms[0].size
            self.transform = Compose([PillowResize(tuple(size)), ours.transforms[1]])
            self.export_transform = get_exportable_transform(self.transform)
