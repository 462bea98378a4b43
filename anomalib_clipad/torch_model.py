"""CLIP-AD in plain PyTorch, for one class at a time: a class encoder and a detector."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy, deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from .adaptors.base import Adaptor, Shape
from .adaptors.registry import ADAPTORS, new_adaptor
from .digest import digest
from .settings import Settings
from .text.cache import EmbeddingCache
from .text.class_encoder import ClassEncoder
from .text.encoder import text_tower
from .vision.detector import Detector, Evidence, Prediction, Seen, patch_size
from .vision.memory import Memory
from .vision.pool import Pool, key_of
from .vision.tiles import Tiles

if TYPE_CHECKING:
    from anomalib.data import InferenceBatch
    from open_clip import CLIP

    from .backbones import Backbone


class ClipADModel(nn.Module):
    """CLIP-AD: compare patches with representative vectors of "flawless" and "damaged" prompts.

    Args:
        backbone: A CLIP with its tokenizer, from ``load_backbone``. The model works on a copy of it.
        settings: What it computes; backbone, weights and image size are those of ``backbone`` in any case.
        cache: Where prompt embeddings are kept between runs, if anywhere.
        **options: Single settings, by the names of ``Settings.of``, such as ``rvs="kde"``.

    Attributes:
        settings: What it computes.
        encoder: Class name to text features.
        detector: Images and text features to scores.
        class_name: The class ``text_features`` are of.
        text_features: Representative vectors, normal and abnormal (D, 2).
        pool: Unlabelled images that the scored ones are compared with, if any.
        fingerprint: Digest of the image tower.
        tiler: anomalib's ``Tiler``, which its ``TilerConfigurationCallback`` sets; ``ClipAD`` reads it.

    Raises:
        ValueError: If a setting is not valid.

    Example:
        >>> from anomalib_clipad import ClipADModel, load_backbone
        >>> model = ClipADModel(load_backbone("clipad-mini"), smoothing=4.0)
        >>> model.setup("hazelnut")
        >>> batch = model(torch.zeros(1, 3, 304, 304))
        >>> batch.pred_score.shape, batch.anomaly_map.shape
        (torch.Size([1]), torch.Size([1, 304, 304]))
    """

    settings: Settings
    encoder: ClassEncoder
    detector: Detector
    text_features: Tensor
    tiler: Any = None

    def __init__(
        self,
        backbone: Backbone,
        settings: Settings | None = None,
        cache: EmbeddingCache | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        given = settings.as_dict() if settings else {}
        settings = Settings.of(**{**given, **options, **backbone.settings()})
        clip = deepcopy(backbone.clip).eval().requires_grad_(False).float()
        if settings.variant in ADAPTORS:
            ADAPTORS[settings.variant].prepare(clip, backbone.positions)
        visual = clip.visual.to(getattr(torch, settings.precision))
        self.tokenizer, self.cache, self.fingerprint = backbone.tokenizer, cache, backbone.fingerprint
        self.image_size = backbone.image_size
        self.class_name: str | None = None
        self.pool: Pool | None = None
        self.register_buffer("text_features", torch.full((visual.proj.shape[1], 2), torch.nan, dtype=torch.float32))
        width, dim = visual.proj.shape
        shape = Shape(width, _text_width(clip), dim, self.image_size // patch_size(visual), self.image_size)
        adapter = new_adaptor(settings.variant, shape)
        self._build(settings, _without_image_tower(clip), visual, adapter, None)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.text_features.device

    def configure(self, settings: Settings) -> None:
        """Take over other settings for the same backbone. Text features stay as they are until the next ``setup``."""
        detector = self.detector
        self._build(settings, self.encoder.clip, detector.visual, self.adapter, detector.memory)

    def _build(
        self, settings: Settings, clip: CLIP, visual: nn.Module, adapter: Adaptor | None, memory: Memory | None
    ) -> None:
        reader = Detector.sdp if adapter is None else adapter
        smoothing = reader.smoothing if settings.smoothing is None else settings.smoothing
        self.settings = replace(settings, smoothing=smoothing)
        self.encoder = self._encoder(settings, clip)
        patch = patch_size(visual)
        tiles = Tiles(*settings.tiles, self.image_size, patch, settings.aligned) if settings.tiles else None
        parts = (adapter, memory, settings.text_weight, settings.joining, tiles)
        detector = Detector(visual, self.image_size, smoothing, settings.tap, *parts)
        self.detector = detector.to(self.text_features.device)

    @property
    def adapter(self) -> Adaptor | None:
        """Its layers, where the variant has any."""
        return cast("Adaptor | None", self.detector.adapter)

    @property
    def title(self) -> str:
        """What its variant is called in a sentence."""
        return "SDP" if self.adapter is None else self.adapter.title

    @property
    def untrained(self) -> bool:
        """Whether it has layers that have not learnt anything yet."""
        return self.adapter is not None and not bool(self.adapter.trained)

    @property
    def layers(self) -> str:
        """Digest of the trained layers; ``None``, as text, without any."""
        adapter = self.adapter
        return "None" if adapter is None else digest(adapter.state_dict())

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels at which images are best delivered: those of its input, or more with tiles."""
        tiles = self.detector.tiles
        return (self.image_size, self.image_size) if tiles is None else tiles.canvas

    def train(self, mode: bool = True) -> ClipADModel:
        """CLIP is frozen: it stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        self.detector.visual.eval()
        return self

    def refresh(self) -> None:
        """Encode the class anew where its text features have been trained since."""
        if self.adapter is not None and self.adapter.trains_text and self.class_name is not None:
            self.text_features.copy_(self.encode(self.class_name))

    def setup(self, class_name: str, settings: Settings | None = None) -> None:
        """Encode the prompts of a class and select its representative vectors.

        Args:
            class_name: What the images show.
            settings: Other settings for the same backbone, taken over with the class: both, or neither.

        Raises:
            ValueError: If the name is no text, is empty, or is too long for the text encoder.
        """
        encoder = self.encoder if settings is None else self._encoder(settings)
        text_features = self.encode(class_name, encoder=encoder)
        if settings is not None:
            self.configure(settings)
        self.text_features.copy_(text_features)
        self.class_name = class_name

    @torch.no_grad()
    def encode(
        self, class_name: str, rvs_options: Mapping[str, float] | None = None, encoder: ClassEncoder | None = None
    ) -> Tensor:
        """The vectors of a class, normal and abnormal (D, 2), without taking them over.

        Args:
            class_name: What the images show.
            rvs_options: Parameters of RVS for this class, in place of the settings'.
            encoder: In place of its own.

        Raises:
            ValueError: As ``setup``.
        """
        encoder = encoder or self.encoder
        if self.adapter is None:
            return encoder.encode(class_name, rvs_options)
        return self.adapter.encode(encoder, class_name, rvs_options)

    def _encoder(self, settings: Settings, clip: CLIP | None = None) -> ClassEncoder:
        text = (settings.prompts, settings.rvs, settings.rvs_options, self.cache)
        return ClassEncoder(clip or self.encoder.clip, self.tokenizer, *text)

    @torch.no_grad()
    def tokens(self, images: Tensor, stage: int = 0) -> list[Tensor]:
        """What trained layers read of images in a stage of training, see ``Adaptor.lesson``."""
        self._check_whole(images)
        assert self.adapter is not None, "only layers learn"
        return self.adapter.lesson(self.detector.view, images, stage)

    @torch.no_grad()
    def examine(self, images: Tensor) -> Evidence:
        """What one pass through the tower tells of images (B, 3, H, W), before they are compared with others.

        Raises:
            ValueError: If the model has tiles.
        """
        self._check_whole(images)
        return self.detector.examine(images, self._text())

    def _check_whole(self, images: Tensor) -> None:
        if self.detector.tiles is not None:
            msg = "Layers are trained on whole images, and mutual compares whole images: leave out tiles for both."
            raise ValueError(msg)
        self.detector.check(images)

    def forward(self, images: Tensor) -> InferenceBatch:
        """``predict``, as anomalib's ``InferenceBatch``."""
        from anomalib.data import InferenceBatch  # takes seconds, and nothing else here needs it

        return InferenceBatch(*self.predict(images))

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Score images.

        Args:
            images: Normalised images (B, 3, H, W) of the backbone's size; with tiles, of ``input_size`` or another one
                that the tiles cover.

        Returns:
            ``pred_score`` (B,) and ``anomaly_map`` (B, H, W), see ``Detector.forward`` and ``Pool.judge``.

        Raises:
            RuntimeError: If ``setup`` was not called, or the text has no share and there is nothing else.
            ValueError: If the images are of another shape, the memory is of other tiles, or the device cannot run the
                precision.
        """
        if self.pool is not None:
            return self.pool.judge(self.examine(images), [key_of(image) for image in images])
        self.detector.check(images)
        return self.detector(images, self.comparable_text())

    @torch.no_grad()
    def observe(self, images: Tensor) -> Seen:
        """What one pass through the tower tells of images, whatever they are compared with afterwards.

        Args:
            images: As of ``predict``.
        """
        self.detector.check(images)
        return self.detector.observe(images, outputs=True)

    @torch.no_grad()
    def conclude(self, seen: Seen) -> Prediction:
        """Score what was observed, with the text and the normal images of now; as ``predict``, without the tower."""
        memory = self.detector.memory
        return self.detector.conclude(seen, self.comparable_text(), None if memory is None else memory.tokens)

    def comparable_text(self) -> Tensor | None:
        """The text features, if the text has a share.

        Raises:
            RuntimeError: If it has, and ``setup`` was not called; or it has not, and there are no images to compare
                with.
        """
        text = self._text()
        if text is None and self.detector.memory is None:
            msg = "With text_weight 0 images are compared with others alone, and there are none: pass k_shot or mutual."
            raise RuntimeError(msg)
        return text

    def _text(self) -> Tensor | None:
        """The text features, if the text has a share."""
        if not self.settings.uses_text:
            return None
        if self.class_name is None:
            msg = "The model has no text features yet; call setup(class_name) first."
            raise RuntimeError(msg)
        return self.text_features


def _text_width(clip: CLIP) -> int:
    """Width of a text tower of open_clip; 0 where there is none, or of another make."""
    norm = getattr(text_tower(clip), "ln_final", None)
    return 0 if norm is None else int(norm.normalized_shape[0])


def _without_image_tower(clip: CLIP) -> CLIP:
    """The same text tower without the image tower beside it."""
    text = copy(clip)
    text._modules = {name: module for name, module in clip._modules.items() if name != "visual"}
    return text
