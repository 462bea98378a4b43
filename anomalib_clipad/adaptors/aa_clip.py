"""AA-CLIP: small residual layers after the first blocks of both towers, and projections of their own.

The arithmetic, as its authors compute it (docs/algorithm.md, AA-CLIP).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear, normalize

from anomalib_clipad.text.class_encoder import ClassEncoder, check_class_name
from anomalib_clipad.text.encoder import Tokenizer, causal_ends, causal_tokens, text_tower
from anomalib_clipad.vision.dual_path import STAGES, ordinary_path, project_features, value_path
from anomalib_clipad.vision.reader import Found, Read, View
from anomalib_clipad.vision.smoothing import patch_blur, smooth, upsampling_matrix
from anomalib_clipad.vision.surgery import ScoreScale

from .aa_clip_losses import detection_score, level_maps, stage_one_losses, stage_two_losses
from .aa_clip_text import AA_CLIP, described
from .base import Adaptor, Lesson, Shape, check_causal
from .pickled import read_plain
from .stages import Stage

if TYPE_CHECKING:
    from open_clip import CLIP
    from open_clip.transformer import TextTransformer, VisionTransformer

_TEXT_LAYERS = 3
_IMAGE_LAYERS = 6
_SHARE = 0.1
_KERNEL = 7
_SIGMA = 1.0


class ResidualAdapter(nn.Linear):
    """Mixes a tenth of an adapted token into a token; the adapted one is made as long as the token first.

    Args:
        width: Width of the tower.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width, bias=False)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (..., width)."""
        adapted = leaky_relu(linear(tokens.float(), self.weight))
        lengths = [part.norm(dim=-1, keepdim=True) for part in (tokens.float(), adapted)]
        return ((1 - _SHARE) * tokens + _SHARE * adapted * lengths[0] / lengths[1]).to(tokens.dtype)


def _levels_as_probability(anomaly_map: Tensor) -> Tensor:
    """Between 0 and 1, in the same order, 0.5 where the four levels are undecided; not a sigmoid, which has ties."""
    logit = (anomaly_map - STAGES / 2) / STAGES
    return 0.5 + 0.5 * logit / (1 + logit.abs())


class AAClip(Adaptor):
    """AA-CLIP: layers of the text tower, trained in stage 1, and of the image tower, trained in stage 2.

    Args:
        shape: What the layers are made for.
        layers: Image blocks, from the first on, that have an adapter.

    Attributes:
        relu: Whether the projections of the image side have a LeakyReLU, as of files trained with ``--relu``; part of
            the state.
    """

    title = "AA-CLIP"
    form = "a folder of the two files that the authors' training writes, image_adapter.pth and text_adapter.pth"
    parts = ("image_adapter.pth", "text_adapter.pth")
    scale = ScoreScale(_levels_as_probability, STAGES / 2, by_pixels=True)
    smoothing = 0.0
    trains_text = True
    course = (
        Stage(epochs=5, batch_size=16, learning_rate=1e-5),
        Stage(epochs=20, batch_size=2, learning_rate=5e-4, milestones=(16_000, 32_000)),
    )
    betas = (0.5, 0.999)

    relu: Tensor
    upsampling: Tensor
    smoothed_upsampling: Tensor

    def __init__(self, shape: Shape, layers: int = _IMAGE_LAYERS) -> None:
        super().__init__()
        width, text_width, dim = shape.width, shape.text_width, shape.dim
        self.text_adapter = nn.ModuleList(ResidualAdapter(text_width) for _ in range(_TEXT_LAYERS))
        self.text_projection = nn.Linear(text_width, dim, bias=False)
        self.image_adapter = nn.ModuleList(ResidualAdapter(width) for _ in range(layers))
        self.seg_projection = nn.ModuleList(nn.Linear(width, dim, bias=False) for _ in range(STAGES))
        self.det_projection = nn.Linear(width, dim, bias=False)
        for projection in (self.text_projection, *self.seg_projection, self.det_projection):
            nn.init.xavier_uniform_(projection.weight)
        self.register_buffer("relu", torch.tensor(False))
        upsampling = upsampling_matrix(shape.grid, shape.image_size)
        blur = patch_blur(shape.grid, _KERNEL, _SIGMA, "reflect")
        self.register_buffer("upsampling", upsampling, persistent=False)
        self.register_buffer("smoothed_upsampling", upsampling @ blur, persistent=False)

    @classmethod
    def of(cls, shape: Shape) -> AAClip:
        """New layers.

        Raises:
            ValueError: If there are so few patches that the border cannot be reflected.
        """
        if shape.grid <= _KERNEL // 2:
            msg = f"AA-CLIP needs {_KERNEL // 2 + 1} x {_KERNEL // 2 + 1} patches or more; pass a larger image_size."
            raise ValueError(msg)
        return cls(shape)

    @classmethod
    def prepare(cls, clip: CLIP, positions: Tensor | None) -> None:
        """Put GELU in place of any other activation: the authors run OpenAI's weights so."""
        del positions
        check_causal(clip, cls.title)
        for tower in (clip.visual, text_tower(clip)):
            for block in tower.transformer.resblocks:
                block.mlp[1] = nn.GELU()

    def encode_sentences(
        self, text: CLIP | TextTransformer, tokenizer: Tokenizer, class_name: str
    ) -> tuple[Tensor, Tensor]:
        """L2-normalised features of a class's sentences: normal (6, D) and abnormal (10, D)."""
        normal, abnormal = AA_CLIP.texts(described(class_name))
        tokens = causal_tokens(tokenizer, [*normal, *abnormal]).to(self.text_projection.weight.device)
        embedded = text.token_embedding(tokens)
        ends = causal_ends(text, embedded, tokens.argmax(dim=1), _after(self.text_adapter))
        features = normalize(leaky_relu(self.text_projection(ends.float())), dim=-1)
        return features[: len(normal)], features[len(normal) :]

    def vectors(self, text: CLIP | TextTransformer, tokenizer: Tokenizer, class_name: str) -> Tensor:
        """The vectors of a class, normal and abnormal: (D, 2)."""
        states = self.encode_sentences(text, tokenizer, class_name)
        return torch.stack([normalize(features.mean(dim=0), dim=-1) for features in states], dim=1)

    def encode(self, encoder: ClassEncoder, class_name: str, rvs_options: Mapping[str, float] | None = None) -> Tensor:
        """The vectors of a class by the authors' sentences."""
        del rvs_options
        check_class_name(class_name)
        return self.vectors(text_tower(encoder.clip), encoder.tokenizer, class_name)

    def stages(self, visual: VisionTransformer, images: Tensor) -> list[Tensor]:
        """Tokens of the four stages (B, 1 + N, width), of the tower with its adapters."""
        return ordinary_path(visual, images, _after(self.image_adapter))

    def project(self, visual: VisionTransformer, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What is compared with text: patches of each stage (4, B, N, D), unit vectors, and the image (B, D).

        Args:
            visual: The image tower, of which ``ln_post`` is used.
            stages: Of ``read``.
        """
        normed = [visual.ln_post(tokens[:, 1:]).float() for tokens in stages]
        levels = [self._project(layer, tokens) for layer, tokens in zip(self.seg_projection, normed, strict=True)]
        return torch.stack(levels), self._project(self.det_projection, normed[-1]).mean(dim=1)

    def _project(self, layer: nn.Module, tokens: Tensor) -> Tensor:
        projected = layer(tokens)
        return normalize(torch.where(self.relu, leaky_relu(projected), projected), dim=-1)

    def read(self, view: View, images: Tensor, tokens: bool) -> Read:
        """Tokens of the four stages (B, 1 + N, width)."""
        stages = self.stages(view.visual, images)
        return Read(stages, [stage[:, 1:] for stage in stages] if tokens else None)

    def compare(self, view: View, features: Sequence[Tensor], text: Tensor) -> Found:
        """Raw image score, and the sum of the four levels' maps; smoothing beyond the authors' is the view's."""
        levels, image = self.project(view.visual, features)
        matrix = self.smoothed_upsampling if view.blur is None else view.blur @ self.smoothed_upsampling
        return Found(detection_score(image, text), smooth(level_maps(levels, text).sum(dim=0), matrix))

    def image_features(self, view: View, features: Sequence[Tensor]) -> Tensor:
        """What the image score is made of, of unit length."""
        normed = view.visual.ln_post(features[-1][:, 1:]).float()
        return normalize(self._project(self.det_projection, normed).mean(dim=1), dim=-1)

    def text_part(self, anomaly_map: Tensor) -> Tensor:
        """Four times the value between 0 and 1."""
        return STAGES * _levels_as_probability(anomaly_map)

    def groups(self) -> list[list[nn.Parameter]]:
        """The text tower's layers, and those of the image side."""
        text = [*self.text_adapter.parameters(), *self.text_projection.parameters()]
        image = [*self.image_adapter.parameters(), *self.seg_projection.parameters(), *self.det_projection.parameters()]
        return [text, image]

    def lesson(self, view: View, images: Tensor, stage: int) -> list[Tensor]:
        """Patches of CLIP without adapters; in stage 2 the images, since layers change what comes after a block."""
        return [images] if stage else list(stage_one_features(view.visual, images, self.as_coded))

    def keeps(self, stage: int) -> bool:
        """In stage 1, unless images attend to each other."""
        return stage == 0 and not self.as_coded

    def losses(self, view: View, lesson: Lesson) -> dict[str, Tensor]:
        """Those of the stage."""
        if lesson.stage == 0:
            features = torch.stack(lesson.features)
            return stage_one_losses(features, lesson.text, lesson.masks, self.upsampling, self.as_coded)
        levels, image = self.project(view.visual, self.stages(view.visual, lesson.features[0]))
        return stage_two_losses(levels, image, lesson.text.detach(), lesson.masks, lesson.labels, self.upsampling)

    def foreign_state(self, files: Sequence[Path]) -> dict[str, Tensor]:
        """Of both files; the names in them tell whether the projections have a LeakyReLU."""
        image, text = (dict(read_plain(file)[file.stem]) for file in files)
        relu = "det_proj.fc.0.weight" in image
        state = {"relu": torch.tensor(relu)}
        for name, value in text.items():
            number = name.removesuffix(".fc.0.weight")
            ours = "text_projection" if number == str(_TEXT_LAYERS) else f"text_adapter.{number}"
            state[f"{ours}.weight"] = value
        parts = {"layer_adapters": "image_adapter", "seg_proj": "seg_projection", "det_proj": "det_projection"}
        for name, value in image.items():
            part, _, rest = name.partition(".")
            state[f"{parts.get(part, part)}.{_without_layer(rest)}"] = value
        return state

    def adapt(self, state: Mapping[str, Tensor]) -> None:
        """Have as many adapters as a file has."""
        numbers = {int(name.split(".")[1]) for name in state if name.startswith("image_adapter.")}
        width, device = self.det_projection.in_features, self.det_projection.weight.device
        if numbers and max(numbers) + 1 != len(self.image_adapter):
            self.image_adapter = nn.ModuleList(ResidualAdapter(width) for _ in range(max(numbers) + 1)).to(device)


def _without_layer(name: str) -> str:
    """A weight's name without the layers around it: ``0.fc.0.weight`` is ``0.weight``."""
    return re.sub(r"(^|\.)fc(\.0)?\.", r"\1", name)


def _after(adapters: nn.ModuleList) -> Callable[[int, Tensor], Tensor]:
    """Adapters after the first blocks, one after each."""
    return lambda block, tokens: adapters[block - 1](tokens) if block <= len(adapters) else tokens


def stage_one_features(visual: VisionTransformer, images: Tensor, as_coded: bool = False) -> Tensor:
    """What the text is trained on, of CLIP without adapters: patches of four stages (4, B, N, D).

    From the block that ends the first stage on, values attend to values, among the patches of an image. The unit vector
    of the image by CLIP as it is joins each unit vector of a patch.

    Args:
        visual: The image tower.
        images: Normalised images (B, 3, H, W).
        as_coded: Values attend among the images of the batch, each to those of its own place, as in the authors'
            program.
    """
    patches, cls = value_path(visual, images, across=as_coded)
    image = project_features(visual, cls)
    return torch.stack([project_features(visual, tokens[:, 1:]) + image for tokens in patches])
