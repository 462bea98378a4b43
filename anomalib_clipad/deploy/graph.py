"""The whole of ClipAD as one module: image in, scores, labels, maps and masks out."""

from __future__ import annotations

from copy import copy, deepcopy

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn
from torchvision.transforms.v2 import Compose, InterpolationMode, Resize

from anomalib_clipad.host.post_processor import ClipADPostProcessor
from anomalib_clipad.vision.detector import Detector
from anomalib_clipad.vision.resize import MatrixResize, PillowResize

from .tower import Tower


class InferenceGraph(nn.Module):
    """A copy of a model for one class, or for any class if text features are its second input.

    Args:
        detector: The model's detector.
        text_features: Representative vectors, normal and abnormal (D, 2).
        transform: Its pre-processing, torchvision's, from images in [0, 1].
        post_processor: Its post-processing, if any.
        text_input: Whether text features come with the images.
        metadata: What anyone should know who finds the file.
    """

    text_features: Tensor

    def __init__(
        self,
        detector: Detector,
        text_features: Tensor,
        transform: nn.Module | None,
        post_processor: nn.Module | None,
        text_input: bool,
        metadata: dict[str, str],
    ) -> None:
        super().__init__()
        self.pre_processor = exportable(transform) if transform is not None else nn.Identity()
        settings = (detector.image_size, detector.smoothing, detector.tap)
        parts = (deepcopy(detector.adapter), deepcopy(detector.memory), detector.text_weight)
        self.detector = Detector(Tower(detector.visual), *settings, *parts, detector.tiles)
        self.text_input, self.metadata = text_input, metadata
        self.register_buffer("text_features", text_features.detach().clone())
        self.post_processor = _without_trainer(post_processor)
        if isinstance(self.post_processor, ClipADPostProcessor):
            self.post_processor.serve(self.detector.calibration)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor, text_features: Tensor | None = None) -> InferenceBatch:
        """Find defects.

        Args:
            images: RGB images (B, 3, H, W) of any size, values in [0, 1].
            text_features: Representative vectors, normal and abnormal (D, 2), of a model with ``text_input``.

        Returns:
            ``pred_score`` (B,), ``pred_label`` (B,), ``anomaly_map`` (B, h, w) and ``pred_mask`` (B, h, w), of the
            model's own size h, w.

        Raises:
            ValueError: If text features are given to a model without that input, or missing for one with it.
        """
        if self.text_input == (text_features is None):
            msg = "Text features are the second input of a model exported with text_input, and only of such a one."
            raise ValueError(msg)
        text = self.text_features if text_features is None else text_features
        raw = InferenceBatch(*self.detector(self.pre_processor(images), text))
        return self.post_processor(raw) if self.post_processor is not None else raw


def _without_trainer(post_processor: nn.Module | None) -> nn.Module | None:
    """A copy without the ``log`` methods that Lightning hangs on callbacks, with its trainer and the model behind."""
    if post_processor is None:
        return None
    bare = copy(post_processor)
    for name in ("log", "log_dict"):
        vars(bare).pop(name, None)
    return deepcopy(bare)


def exportable(transform: nn.Module) -> nn.Module:
    """The same pre-processing with every antialiased resize as matrix products.

    Raises:
        ValueError: If a resize cannot be written so.
    """
    if isinstance(transform, Compose):
        return nn.Sequential(*(exportable(part) for part in transform.transforms))
    if not isinstance(transform, Resize) or not transform.antialias:
        return deepcopy(transform)
    if transform.size is None or len(transform.size) != 2:
        msg = (
            f"The pre-processor's {transform} keeps the aspect, which an exported graph cannot; give height and width."
        )
        raise ValueError(msg)
    whole_levels = isinstance(transform, PillowResize)
    return MatrixResize(transform.size, InterpolationMode(transform.interpolation), whole_levels)
