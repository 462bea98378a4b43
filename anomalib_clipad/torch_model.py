"""CLIP-AD's zero-shot model: images to anomaly maps and scores, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from anomalib.data import InferenceBatch
from torch import Tensor, nn

from .backbones import Backbone
from .scoring.smoothing import smooth, smoothing_matrix
from .scoring.surgery import abnormal_probability, abnormal_response
from .text.cache import EmbeddingCache
from .text.features import class_embeddings, representative_vectors
from .text.prompts import load_prompts
from .text.rvs import check_options
from .vision.dual_path import Tap, dual_path, project_features


class ClipADModel(nn.Module):
    """CLIP-AD (SDP): compare patches with representative vectors of "flawless" and "damaged" prompts.

    Args:
        backbone: A CLIP with its tokenizer, from ``load_backbone``.
        rvs: Method of representative vector selection.
        rvs_options: The method's parameters.
        prompts: Built-in prompt set, YAML file or its content.
        smoothing: Standard deviation of the map's Gaussian, in pixels of the model's input.
        tap: Where the ordinary stream is tapped, see ``dual_path``.
        cache: Where prompt embeddings are kept between runs, if anywhere.

    Raises:
        ValueError: If the RVS method, an option, the prompts, the smoothing or the tap is not valid.
    """

    text_features: Tensor
    smoothing_matrix: Tensor

    def __init__(
        self,
        backbone: Backbone,
        rvs: str = "dbscan",
        rvs_options: Mapping[str, float] | None = None,
        prompts: str | Mapping[str, Sequence[str]] = "industrial",
        smoothing: float = 8.0,
        tap: Tap = "reference",
        cache: EmbeddingCache | None = None,
    ) -> None:
        super().__init__()
        check_options(rvs, rvs_options or {})
        if not 0 <= smoothing < float("inf"):
            msg = f"The smoothing has to be a standard deviation in pixels, 0 or more; got {smoothing}."
            raise ValueError(msg)
        if tap not in {"reference", "block"}:
            msg = f"Unknown tap '{tap}'; expected 'reference' or 'block'."
            raise ValueError(msg)
        self.clip = backbone.clip.eval().requires_grad_(False)
        self.tokenizer = backbone.tokenizer
        self.image_size = backbone.image_size
        self.rvs, self.rvs_options = rvs, dict(rvs_options or {})
        self.prompts = load_prompts(prompts)
        self.tap = tap
        self.cache = cache
        self.class_name: str | None = None
        grid = self.image_size // self.clip.visual.conv1.stride[0]
        self.register_buffer("smoothing_matrix", smoothing_matrix(grid, self.image_size, smoothing), persistent=False)
        self.register_buffer("text_features", torch.full((self.clip.visual.output_dim, 2), torch.nan))

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
        if not class_name.strip():
            msg = "The class name is empty; name the object in the images, such as 'hazelnut'."
            raise ValueError(msg)
        embeddings = class_embeddings(self.clip, self.tokenizer, self.prompts, class_name, self.cache)
        vectors = representative_vectors(embeddings, self.rvs, self.rvs_options, class_name)
        self.text_features.copy_(vectors)
        self.class_name = class_name

    @torch.no_grad()
    def forward(self, images: Tensor) -> InferenceBatch:
        """Score images.

        Args:
            images: Normalised images (B, 3, H, W) of the backbone's size.

        Returns:
            ``pred_score`` (B,): probability of the abnormal state; ``anomaly_map`` (B, H, W): smoothed sum of the
            four stages' abnormal responses, in units of cosine.

        Raises:
            RuntimeError: If ``setup`` was not called.
            ValueError: If the images are of another shape.
        """
        self._check(images)
        visual, text = self.clip.visual, self.text_features
        patch_map: Tensor | float = 0.0
        for stage in dual_path(visual, images, self.tap):
            patch_features = project_features(visual, stage.surgery)
            cls_features = project_features(visual, stage.ordinary).squeeze(1)
            patch_map = patch_map + abnormal_response(patch_features, cls_features, text)
        return InferenceBatch(
            pred_score=abnormal_probability(cls_features, text),
            anomaly_map=smooth(patch_map, self.smoothing_matrix),
        )

    def _check(self, images: Tensor) -> None:
        if self.class_name is None:
            msg = "The model has no text features yet; call setup(class_name) first."
            raise RuntimeError(msg)
        expected = (3, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            msg = f"Expected images of shape (B, {', '.join(map(str, expected))}); got {tuple(images.shape)}."
            raise ValueError(msg)
