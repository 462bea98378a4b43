"""SDP+: linear layers on the patches of the ordinary path, one stage at a time, beside SDP (paper section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from anomalib_clipad.vision.dual_path import STAGES, StageFeatures
from anomalib_clipad.vision.reader import Found, View
from anomalib_clipad.vision.sdp import DualPath
from anomalib_clipad.vision.smoothing import smooth, upsampling_matrix
from anomalib_clipad.vision.surgery import LOGIT_SCALE, SDP_PLUS, towards_abnormal

from .base import Adaptor, Lesson, Shape
from .losses import adapter_losses
from .pickled import read_plain
from .releases import Release

_COMMIT = "f004973a41344d8c0966934af0c01781989b80e3"
_URL = f"https://raw.githubusercontent.com/ByChelsea/CLIP-AD/{_COMMIT}/pretrained_models"


class SDPPlus(Adaptor, DualPath):
    """One linear layer per stage, from the ordinary path's patch tokens to the space shared with text.

    Args:
        width: Width of the image tower.
        dim: Dimension of the text features.
        grid: Patches along an axis.
        image_size: Height and width of the maps in pixels.

    Attributes:
        fc: The layers.
    """

    title = "SDP+"
    form = "the authors' format: a dict with 'linear_layers'"
    released: ClassVar = {
        "visa": (Release(_URL, "train_on_visa.pth", "854cc1034a1d49207f66b2ca20fd2c7aefbb75ca"),),
        "mvtec": (Release(_URL, "train_on_mvtec.pth", "d9102b131ceb8d1d668fbf6bce4e6940eb02986c"),),
    }
    """By the data set they were trained on; for ViT-B-16-plus-240 with laion400m_e31."""
    reads = ("tap",)
    scale = SDP_PLUS
    patches = True

    upsampling: Tensor

    def __init__(self, width: int, dim: int, grid: int, image_size: int) -> None:
        super().__init__()
        self.fc = nn.ModuleList(nn.Linear(width, dim, dtype=torch.float32) for _ in range(STAGES))
        self.register_buffer("upsampling", upsampling_matrix(grid, image_size), persistent=False)

    @classmethod
    def of(cls, shape: Shape) -> SDPPlus:
        """New layers."""
        return cls(shape.width, shape.dim, shape.grid, shape.image_size)

    def forward(self, patches: Sequence[Tensor], text_features: Tensor) -> Tensor:
        """Probability of the abnormal state per stage and pixel.

        The softmax over two classes is the sigmoid of the difference of their logits, and as upsampling is linear, only
        the difference needs it.

        Args:
            patches: Tapped ordinary stream of each stage, without CLS: four tensors (B, N, width).
            text_features: Representative vectors, normal and abnormal: (D, 2), or (B, D, 2), one pair per image.

        Returns:
            Probabilities (4, B, H, W).
        """
        towards = towards_abnormal(text_features)
        logits = [
            LOGIT_SCALE * (normalize(layer(tokens.float()), dim=-1) @ towards).squeeze(-1)
            for layer, tokens in zip(self.fc, patches, strict=True)
        ]
        return torch.stack([smooth(stage, self.upsampling) for stage in logits]).sigmoid()

    def compare(self, view: View, features: Sequence[StageFeatures], text: Tensor) -> Found:
        """As SDP; the smoothed probabilities of the four layers join the map."""
        score, anomaly_map = super().compare(view, features, text)
        probabilities = self(_patches(features), text)  # (4, B, H, W)
        blur = cast("Tensor", view.blur)
        return Found(score, anomaly_map + blur @ probabilities.sum(dim=0) @ blur.T)

    def text_part(self, anomaly_map: Tensor) -> Tensor:
        """The map is in these units."""
        return anomaly_map

    def lesson(self, view: View, images: Tensor, stage: int) -> list[Tensor]:
        """Tapped ordinary stream of the patches: four tensors (B, N, width)."""
        del stage
        return _patches(self.read(view, images, tokens=False).features)

    def losses(self, view: View, lesson: Lesson) -> dict[str, Tensor]:
        """Focal and dice loss of every layer."""
        del view
        return adapter_losses(self(lesson.features, lesson.text), lesson.masks)

    def foreign_state(self, files: Sequence[Path]) -> dict[str, Tensor]:
        """The layers of the file's one entry."""
        (file,) = files
        return dict(read_plain(file)["linear_layers"])


def _patches(stages: Sequence[StageFeatures]) -> list[Tensor]:
    """Tapped ordinary stream without CLS."""
    return [stage.ordinary[:, 1:] for stage in stages]
