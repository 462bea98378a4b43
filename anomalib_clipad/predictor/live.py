"""Models in torch for an inspector: a backbone by its name, or a checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from anomalib_clipad.adaptors.files import adapter_file, load_adapter
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.images.picture import Picture
from anomalib_clipad.predictor.products import load_memory, product_class
from anomalib_clipad.settings import Settings
from anomalib_clipad.text.cache import EmbeddingCache
from anomalib_clipad.text.class_encoder import check_class_name
from anomalib_clipad.text.prompts import load_prompts
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.vision.detector import Prediction, Seen
from anomalib_clipad.vision.matrix_resize import Standardize
from anomalib_clipad.vision.pillow import pillow_resize
from anomalib_clipad.vision.pool import Pool, joined, key_of

from . import quick_start
from .base import Model, Prepared, Scored

_BATCH = 8


class TorchModel(Model):
    """A ``ClipADModel`` that remembers what its tower made of the last image.

    Args:
        model: Ready to predict.
        transform: From images (3, H, W) in [0, 1] to what it takes.
        outputs: From its raw outputs to scores and maps with 0.5 between good and defective.
        complete: The same model with its text tower, where this one was started without.

    Attributes:
        passes: How many batches went through the tower.
    """

    def __init__(
        self,
        model: ClipADModel,
        transform: Callable[[Tensor], Tensor],
        outputs: Outputs,
        complete: Callable[[], ClipADModel] | None = None,
    ) -> None:
        self.model, self._transform, self._outputs, self._complete = model, transform, outputs, complete
        self.normal: NormalScores | None = None
        self.passes = 0
        self._seen: Seen | None = None

    @property
    def class_name(self) -> str | None:  # type: ignore[override]  # the model knows
        """What it looks for defects of."""
        return self.model.class_name

    def prepare(self, picture: Picture) -> Prepared:
        """The image as the tower sees it."""
        prepared: Tensor = self._transform(torch.from_numpy(picture.levels))
        return prepared.numpy()

    def score(self, images: Sequence[Prepared]) -> Scored:
        """Score prepared images, and forget what was seen before."""
        self.passes += 1
        self._seen = None
        return self._scored(self.model.predict(self._joined(images)))

    def score_and_keep(self, image: Prepared) -> Scored:
        """Score one prepared image; ``rescore`` may follow, unless images judge each other."""
        if self.model.pool is not None:
            return self.score([image])
        self.passes += 1
        self._seen = self.model.observe(self._joined([image]))
        return self.rescore()

    def rescore(self) -> Scored:
        """Score the last image anew, with the text and the normal images of now, without the tower.

        Raises:
            RuntimeError: If there is none.
        """
        if self._seen is None:
            msg = "There is no image to look at again: inspect one first, on its own."
            raise RuntimeError(msg)
        return self._scored(self.model.conclude(self._seen))

    def look_for(self, class_name: str | None, prompts: Any = None) -> None:
        """Take another class, or other prompts."""
        if self._complete is not None:
            whole, memory = self._complete(), self.model.detector.memory
            whole.detector.memory = memory
            self.model, self._complete = whole, None
        if prompts is not None:
            self.model.configure(replace(self.model.settings, prompts=load_prompts(prompts)))
        name = class_name or self.model.class_name
        if self.model.settings.text_weight and name is not None:
            self.model.setup(name)

    def remember(self, images: Sequence[Prepared]) -> None:
        """Compare with these normal images from now on."""
        self.passes += -(-len(images) // _BATCH)
        self.model.detector.remember(self._batches(images))

    def gather(self, batches: Iterable[Sequence[Prepared]]) -> None:
        """Let these images judge each other, and those that follow, from now on.

        Raises:
            ValueError: If there are fewer than two.
        """
        evidence, keys = [], []
        for batch in batches:
            images = self._joined(batch)
            evidence.append(self.model.examine(images))
            keys += [key_of(image) for image in images]
        self.passes += len(evidence)
        self.model.pool = Pool(self.model.detector, joined(evidence), keys)

    @torch.no_grad()
    def left_out(self, images: Sequence[Prepared]) -> Scored:
        """Scores of several normal images, each compared with all the others."""
        self.passes += -(-len(images) // _BATCH)
        text = self.model.text_features if self.model.settings.text_weight else None
        return self._scored(self.model.detector.leave_one_out(self._batches(images), text))

    def _scored(self, raw: Prediction) -> Scored:
        score, anomaly_map = self._outputs(self.model, raw)
        return Scored(score.float().cpu().numpy(), anomaly_map.float().cpu().numpy())

    def describe(self, images: Sequence[Prepared]) -> Tensor:
        """What a memory needs of normal images (places, k, 4, N, width), on the CPU."""
        return torch.cat([self.model.detector.describe(batch).cpu() for batch in self._batches(images)], dim=1)

    def keep(self, tokens: Tensor, image: Prepared) -> None:
        """Compare with what was described from now on; ``image`` is one of those."""
        self.model.detector.keep(tokens.to(self.model.device), self._joined([image]))

    def to(self, device: str) -> TorchModel:
        """Compute elsewhere from now on, such as on ``cuda``."""
        self.model.to(device)
        self._seen = None
        return self

    def _joined(self, images: Sequence[Prepared]) -> Tensor:
        return torch.from_numpy(np.stack(images)).to(self.model.device)

    def _batches(self, images: Sequence[Prepared]) -> Iterator[Tensor]:
        return (self._joined(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH))


class Outputs(Protocol):
    """From a model's raw outputs to image scores (B,) and maps (B, H, W)."""

    def __call__(self, model: ClipADModel, raw: Prediction, /) -> tuple[Tensor, Tensor]:
        """Make them."""


def by_name(
    class_name: str | None,
    backbone: str = "ViT-B-16-plus-240",
    pretrained: str | None = "laion400m_e31",
    image_size: int | None = None,
    adapter: str | Path | None = None,
    product: Path | None = None,
    text_cache: bool = True,
    **settings: Any,
) -> TorchModel:
    """A model of a backbone by its name.

    Args:
        class_name: What the images show; not needed where the text has no share, or a product file names it.
        backbone: CLIP model, as of ``ClipAD``.
        pretrained: Weights of the backbone.
        image_size: Height and width of the model's input in pixels.
        adapter: Trained layers of SDP+.
        product: A product file with normal images, in place of others.
        text_cache: Keep prompt embeddings on disk between runs.
        **settings: The other settings of ``Settings.of``.

    Raises:
        ValueError: If an argument is not valid.
        WeightsUnavailableError: If weights cannot be downloaded.
    """
    wordless = settings.get("text_weight") == 0
    if class_name is not None:
        check_class_name(class_name)
    elif not wordless and product is None:
        msg = "Say what the images show, as in class_name='hazelnut'; only with text_weight 0 is no name needed."
        raise ValueError(msg)
    variant = settings.pop("variant", "sdp") if adapter is None else "sdp_plus"
    given: dict[str, Any] = {"backbone": backbone, "pretrained": pretrained, "image_size": image_size, **settings}
    chosen = Settings.of(variant=variant, **given)
    if class_name is None and product is not None:
        class_name = product_class(product)
    cache = EmbeddingCache() if text_cache else None
    started = quick_start.recall(chosen, class_name) if text_cache and adapter is None else None
    model, loaded = started or _build(chosen, class_name, cache, adapter)
    if product is not None:
        model.detector.memory = load_memory(product, model)
    standardize, size = Standardize(loaded.mean, loaded.std), model.input_size

    def transform(image: Tensor) -> Tensor:
        return cast("Tensor", standardize(pillow_resize(image, size)))

    def complete() -> ClipADModel:
        return _build(chosen, class_name, cache, adapter)[0]

    return TorchModel(model, transform, _probabilities, complete if started else None)


def _build(
    settings: Settings, class_name: str | None, cache: EmbeddingCache | None, adapter: str | Path | None
) -> tuple[ClipADModel, Backbone]:
    """A model with its text tower, noted for a quick start the next time."""
    from anomalib_clipad.backbones import load_backbone

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loaded = load_backbone(settings.backbone, settings.pretrained, settings.image_size)
        model = ClipADModel(loaded, settings, cache)
        layers = model.detector.adapter
        if layers is not None:
            if adapter is None:
                msg = "SDP+ needs trained layers: pass them as adapter, or a checkpoint as model."
                raise ValueError(msg)
            load_adapter(layers, str(adapter_file(str(adapter))), model.settings, model.fingerprint)
        if settings.text_weight and class_name is not None:
            model.setup(class_name)
    for one in said:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if cache is not None and adapter is None and not any(one.category is UserWarning for one in said):
        quick_start.keep(settings, class_name, model, loaded)
    return model, loaded


def _probabilities(model: ClipADModel, raw: Prediction) -> tuple[Tensor, Tensor]:
    assert raw.anomaly_map is not None
    calibration = model.detector.calibration if model.pool is None else model.pool.calibration
    peak = raw.anomaly_map.amax(dim=(-2, -1))
    return calibration.score(raw.pred_score, peak), calibration.probability(raw.anomaly_map)
