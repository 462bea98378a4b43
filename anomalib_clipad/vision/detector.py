"""The detector: images and two vectors of text to a score and an anomaly map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from .adapter import LinearAdapter
from .dual_path import StageFeatures, Tap, dual_path, project_features
from .smoothing import blur_matrix, smooth, smoothing_matrix
from .surgery import SDP, SDP_PLUS, Calibration, abnormal_probability, abnormal_response

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


class Prediction(NamedTuple):
    """What is found in a batch of images; the fields are those of anomalib's ``InferenceBatch``.

    Attributes:
        pred_score: Score of each image (B,).
        pred_label: Whether the image is defective (B,), where that is decided.
        anomaly_map: Score of each pixel (B, H, W).
        pred_mask: Whether the pixel is defective (B, H, W), where that is decided.
    """

    pred_score: Tensor
    pred_label: Tensor | None = None
    anomaly_map: Tensor | None = None
    pred_mask: Tensor | None = None


def patch_size(visual: nn.Module) -> int:
    """Height and width of an image tower's patches in pixels."""
    return int(cast("nn.Conv2d", visual.conv1).stride[0])


class Detector(nn.Module):
    """CLIP-AD from images to scores (docs/algorithm.md): dual path, feature surgery, smoothing, and SDP+'s layers.

    Args:
        visual: open_clip ``VisionTransformer``, or its like, in any number format; only read.
        image_size: Height and width of the images in pixels.
        smoothing: Standard deviation of the map's Gaussian in pixels.
        tap: Where the ordinary path is read at the end of a stage.
        adapter: Layers of SDP+; without them it is SDP.

    Example:
        An image becomes a map.

        >>> from open_clip.transformer import VisionTransformer
        >>> visual = VisionTransformer(32, patch_size=16, width=16, layers=4, heads=2, mlp_ratio=2, output_dim=8).eval()
        >>> detector = Detector(visual, image_size=32)
        >>> text = torch.nn.functional.normalize(torch.randn(8, 2), dim=0)  # of a ClassEncoder
        >>> with torch.no_grad():
        ...     score, _, anomaly_map, _ = detector(torch.randn(1, 3, 32, 32), text)
        >>> score.shape, anomaly_map.shape
        (torch.Size([1]), torch.Size([1, 32, 32]))
    """

    smoothing_matrix: Tensor
    blur_matrix: Tensor

    def __init__(
        self,
        visual: nn.Module,
        image_size: int,
        smoothing: float = 8.0,
        tap: Tap = "reference",
        adapter: LinearAdapter | None = None,
    ) -> None:
        super().__init__()
        self.visual, self.adapter = visual, adapter
        self.image_size, self.smoothing, self.tap = image_size, smoothing, tap
        grid = image_size // patch_size(visual)
        self.register_buffer("smoothing_matrix", smoothing_matrix(grid, image_size, smoothing), persistent=False)
        if adapter is not None:
            self.register_buffer("blur_matrix", blur_matrix(image_size, smoothing), persistent=False)

    @property
    def calibration(self) -> Calibration:
        """How its raw maps become probabilities."""
        return SDP if self.adapter is None else SDP_PLUS

    def forward(self, images: Tensor, text: Tensor) -> Prediction:
        """Find defects.

        Args:
            images: Normalised images (B, 3, H, W) of the detector's size.
            text: Representative vectors, normal and abnormal: (D, 2), or (B, D, 2), one pair per image.

        Returns:
            ``pred_score``: probability of the abnormal state; ``anomaly_map``: smoothed sum of the four stages'
            abnormal responses, in units of cosine, for SDP+ also of the four layers' probabilities. Float32.
        """
        stages = dual_path(self.visual, images, self.tap, patches=self.adapter is not None)
        responses, cls_features = self.respond(stages, text)  # (4, B, N), (B, D)
        anomaly_map = smooth(responses.sum(dim=0), self.smoothing_matrix)  # (B, H, W)
        if self.adapter is not None:
            probabilities = self.adapter([stage.ordinary[:, 1:] for stage in stages], text)  # (4, B, H, W)
            anomaly_map = anomaly_map + self.blur_matrix @ probabilities.sum(dim=0) @ self.blur_matrix.T
        return Prediction(pred_score=abnormal_probability(cls_features, text), anomaly_map=anomaly_map)

    def respond(self, stages: Sequence[StageFeatures], text: Tensor) -> tuple[Tensor, Tensor]:
        """Abnormal response of each stage and patch (4, B, N), and the last stage's CLS features (B, D)."""
        responses = []
        for stage in stages:
            patch_features = project_features(self.visual, stage.surgery)  # (B, N, D)
            cls_features = project_features(self.visual, stage.ordinary[:, :1]).squeeze(1)  # (B, D)
            responses.append(abnormal_response(patch_features, cls_features, text))  # (B, N)
        return torch.stack(responses), cls_features

    def tokens(self, images: Tensor) -> list[Tensor]:
        """Tapped ordinary stream of the patches, which the layers of SDP+ see: four tensors (B, N, width)."""
        return [stage.ordinary[:, 1:] for stage in dual_path(self.visual, images, self.tap, patches=True)]

    def check(self, images: Tensor) -> None:
        """Check images before they are scored.

        Raises:
            ValueError: If the images are of another shape, the model was cast to another number format, or the device
                cannot run the tower's.
        """
        expected = (3, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            msg = f"Expected images of shape (B, {', '.join(map(str, expected))}); got {tuple(images.shape)}."
            raise ValueError(msg)
        if self.smoothing_matrix.dtype != torch.float32:
            given = str(self.smoothing_matrix.dtype).removeprefix("torch.")
            msg = (
                f"The model was cast to {given}, but scores are computed in float32. Do not cast it: construct it with "
                f"precision='bfloat16' (or 'float16' on a GPU) for a faster image tower."
            )
            raise ValueError(msg)
        if self.visual.proj.dtype == torch.float16 and images.device.type == "cpu":
            msg = "float16 does not run on a CPU; use precision='bfloat16' or 'float32', or a GPU."
            raise ValueError(msg)
