"""CLIP-AD's zero-shot model: images to anomaly maps and scores, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn

from .backbones import Backbone
from .text.cache import EmbeddingCache
from .text.features import class_embeddings, representative_vectors
from .text.prompts import load_prompts
from .text.rvs import check_options
from .vision.adapter import LinearAdapter
from .vision.dual_path import TAPS, Tap, dual_path, project_features
from .vision.smoothing import blur_matrix, smooth, smoothing_matrix
from .vision.surgery import abnormal_probability, abnormal_response

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


class ClipADModel(nn.Module):
    """CLIP-AD: compare patches with representative vectors of "flawless" and "damaged" prompts.

    Without an adapter it is SDP, with one SDP+.

    Args:
        backbone: A CLIP with its tokenizer, from ``load_backbone``.
        rvs: Method of representative vector selection.
        rvs_options: The method's parameters.
        prompts: Built-in prompt set, YAML file or its content.
        smoothing: Standard deviation of the map's Gaussian, in pixels of the model's input.
        tap: Where the ordinary stream is tapped, see ``dual_path``.
        cache: Where prompt embeddings are kept between runs, if anywhere.
        precision: Number format of the image tower. Text features, scores and maps are float32 in any case.
        adapter: Whether the model has the linear layers of SDP+; they start untrained.

    Raises:
        ValueError: If the RVS method, an option, the prompts, the smoothing, the tap or the precision is not valid.
    """

    text_features: Tensor
    smoothing_matrix: Tensor
    blur_matrix: Tensor

    def __init__(
        self,
        backbone: Backbone,
        rvs: str = "dbscan",
        rvs_options: Mapping[str, float] | None = None,
        prompts: str | Mapping[str, Sequence[str]] = "industrial",
        smoothing: float = 8.0,
        tap: Tap = "reference",
        cache: EmbeddingCache | None = None,
        precision: Precision = "float32",
        adapter: bool = False,
    ) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            msg = f"Unknown precision '{precision}'; expected one of {', '.join(PRECISIONS)}."
            raise ValueError(msg)
        self.clip = backbone.clip.eval().requires_grad_(False)
        self.clip.visual.to(getattr(torch, precision))
        self.tokenizer = backbone.tokenizer
        self.image_size = backbone.image_size
        self.fingerprint = backbone.fingerprint
        self.cache = cache
        self.class_name: str | None = None
        self.register_buffer("text_features", torch.full((self.clip.visual.output_dim, 2), torch.nan))
        width, dim = self.clip.visual.proj.shape
        self.adapter = LinearAdapter(width, dim, self.grid, self.image_size) if adapter else None
        self.configure(rvs, rvs_options, prompts, smoothing, tap)

    @property
    def grid(self) -> int:
        """Patches along an axis of the image."""
        return int(self.image_size // self.clip.visual.conv1.stride[0])

    def configure(
        self,
        rvs: str,
        rvs_options: Mapping[str, float] | None,
        prompts: str | Mapping[str, Sequence[str]],
        smoothing: float,
        tap: Tap,
    ) -> None:
        """Set the options, as in the constructor. Text features stay as they are until the next ``setup``."""
        check_options(rvs, rvs_options or {})
        if not 0 <= smoothing < float("inf"):
            msg = f"The smoothing has to be a standard deviation in pixels, 0 or more; got {smoothing}."
            raise ValueError(msg)
        if tap not in TAPS:
            msg = f"Unknown tap '{tap}'; expected one of {', '.join(TAPS)}."
            raise ValueError(msg)
        self.rvs, self.rvs_options = rvs, dict(rvs_options or {})
        self.prompts = load_prompts(prompts)
        self.smoothing, self.tap = smoothing, tap
        device = self.text_features.device
        matrix = smoothing_matrix(self.grid, self.image_size, smoothing).to(device)
        self.register_buffer("smoothing_matrix", matrix, persistent=False)
        if self.adapter is not None:
            self.register_buffer("blur_matrix", blur_matrix(self.image_size, smoothing).to(device), persistent=False)

    def options(self) -> dict[str, Any]:
        """The options as plain data; ``configure(**options)`` restores them."""
        return {
            "rvs": self.rvs,
            "rvs_options": self.rvs_options,
            "prompts": self.prompts.as_dict(),
            "smoothing": self.smoothing,
            "tap": self.tap,
        }

    def train(self, mode: bool = True) -> ClipADModel:
        """CLIP is frozen: it stays in evaluation mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def setup(self, class_name: str) -> None:
        """Encode the prompts of a class and select its representative vectors.

        Raises:
            ValueError: If the name is empty or too long for the text encoder.
        """
        self.text_features.copy_(self.encode_class(class_name))
        self.class_name = class_name

    def encode_class(self, class_name: str) -> Tensor:
        """Representative vectors of a class, normal and abnormal (D, 2); raises as ``setup`` does."""
        if not class_name.strip():
            msg = "The class name is empty; name the object in the images, such as 'hazelnut'."
            raise ValueError(msg)
        embeddings = class_embeddings(self.clip, self.tokenizer, self.prompts, class_name, self.cache)
        return representative_vectors(embeddings, self.rvs, self.rvs_options, class_name)

    @torch.no_grad()
    def tap_patches(self, images: Tensor) -> list[Tensor]:
        """What the layers of SDP+ see: tapped ordinary stream of the patches, four tensors (B, N, width)."""
        self._check_images(images)
        return [stage.ordinary[:, 1:] for stage in dual_path(self.clip.visual, images, self.tap, patches=True)]

    @torch.no_grad()
    def forward(self, images: Tensor) -> InferenceBatch:
        """Score images.

        Args:
            images: Normalised images (B, 3, H, W) of the backbone's size.

        Returns:
            ``pred_score`` (B,): probability of the abnormal state; ``anomaly_map`` (B, H, W): smoothed sum of the
            four stages' abnormal responses, in units of cosine; for SDP+ also of the four layers' probabilities.

        Raises:
            RuntimeError: If ``setup`` was not called.
            ValueError: If the images are of another shape, or the device cannot run the precision.
        """
        if self.class_name is None:
            msg = "The model has no text features yet; call setup(class_name) first."
            raise RuntimeError(msg)
        self._check_images(images)
        return score_images(
            self.clip.visual,
            images,
            self.text_features,
            self.tap,
            self.smoothing_matrix,
            self.adapter,
            self.blur_matrix if self.adapter is not None else None,
        )

    def _check_images(self, images: Tensor) -> None:
        expected = (3, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            msg = f"Expected images of shape (B, {', '.join(map(str, expected))}); got {tuple(images.shape)}."
            raise ValueError(msg)
        if self.clip.visual.proj.dtype == torch.float16 and images.device.type == "cpu":
            msg = "float16 does not run on a CPU; use precision='bfloat16' or 'float32', or a GPU."
            raise ValueError(msg)


def score_images(
    visual: nn.Module,
    images: Tensor,
    text: Tensor,
    tap: Tap,
    smoothing_matrix: Tensor,
    adapter: LinearAdapter | None = None,
    blur_matrix: Tensor | None = None,
) -> InferenceBatch:
    """Probability and raw anomaly map of images: CLIP-AD from end to end, see ``ClipADModel.forward``.

    Args:
        visual: open_clip ``VisionTransformer``, or its like.
        images: Normalised images (B, 3, H, W).
        text: Representative vectors, normal and abnormal (D, 2).
        tap: Where the ordinary path is read.
        smoothing_matrix: Upsampling and Gaussian along one axis (H, grid).
        adapter: Layers of SDP+.
        blur_matrix: The Gaussian alone (H, H), for SDP+.
    """
    stages = dual_path(visual, images, tap, patches=adapter is not None)
    responses = []
    for stage in stages:
        patch_features = project_features(visual, stage.surgery)
        cls_features = project_features(visual, stage.ordinary[:, :1]).squeeze(1)
        responses.append(abnormal_response(patch_features, cls_features, text))
    anomaly_map = smooth(torch.stack(responses).sum(dim=0), smoothing_matrix)
    if adapter is not None and blur_matrix is not None:
        probabilities = adapter([stage.ordinary[:, 1:] for stage in stages], text)
        anomaly_map = anomaly_map + blur_matrix @ probabilities.sum(dim=0) @ blur_matrix.T
    return InferenceBatch(pred_score=abnormal_probability(cls_features, text), anomaly_map=anomaly_map)
