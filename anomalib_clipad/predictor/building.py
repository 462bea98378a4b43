"""A predictor from a backbone by its name, and from a product file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from anomalib_clipad.adaptors.files import TrainedLayers
from anomalib_clipad.adaptors.registry import ADAPTORS
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.noted import noted
from anomalib_clipad.settings import Settings
from anomalib_clipad.text.cache import EmbeddingCache
from anomalib_clipad.text.class_encoder import check_class_name
from anomalib_clipad.torch_model import ClipADModel
from anomalib_clipad.vision.matrix_resize import Standardize
from anomalib_clipad.vision.pillow import pillow_resize

from . import quick_start
from .live import LivePredictor
from .products import Product, read_product


@dataclass(frozen=True)
class Resized:
    """Pillow's bicubic resize to one size, aspect not kept, and CLIP's normalisation.

    Attributes:
        size: Height and width in pixels.
        standardize: The normalisation.
    """

    size: tuple[int, int]
    standardize: Standardize

    def __call__(self, image: Tensor) -> Tensor:
        """Images (..., 3, H, W) in [0, 1] as the tower sees them."""
        return cast("Tensor", self.standardize(pillow_resize(image, self.size)))


def by_name(
    class_name: str | None,
    adapter: str | Path | None = None,
    product: Path | None = None,
    text_cache: bool = True,
    **settings: Any,
) -> LivePredictor:
    """A predictor of a backbone by its name.

    Args:
        class_name: What the images show; not needed where the text has no share, or a product file names it.
        adapter: Trained layers, as ``adapter_file`` takes them.
        product: A product file, whose settings are taken where no others are given.
        text_cache: Keep prompt embeddings on disk between runs.
        **settings: Those of ``Settings.of``.

    Raises:
        ValueError: If an argument is not valid, or is another one than that of the product file.
        WeightsUnavailableError: If weights cannot be downloaded.
    """
    file = None if product is None else read_product(product)
    if file is not None:
        about = {name: file.about[name] for name in Settings().as_dict() if name in file.about}
        settings = {**about, **settings}
    layers = None if adapter is None else TrainedLayers(adapter)
    chosen = settings_with(layers, settings)
    class_name = _class_of(class_name, file, chosen)
    cache = EmbeddingCache() if text_cache else None
    started = quick_start.recall(chosen, class_name) if text_cache else None
    model, loaded = started or _build(chosen, class_name, cache, layers)

    def complete() -> ClipADModel:
        return _build(chosen, class_name, cache, layers)[0]

    again: Callable[[], ClipADModel] | None = complete if started else None
    predictor = LivePredictor(model, Resized(model.input_size, Standardize(loaded.mean, loaded.std)), complete=again)
    if file is not None:
        predictor.fit_product(file)
    return predictor


def settings_with(layers: TrainedLayers | None, given: Mapping[str, Any]) -> Settings:
    """The settings of a model and of its trained layers, if it has any.

    Args:
        layers: These layers.
        given: Those of ``Settings.of``.

    Raises:
        ValueError: If a setting is not valid, or layers are missing or belong to another backbone.
    """
    chosen = Settings.of(**(given if layers is None else layers.settings(given)))
    if chosen.variant in ADAPTORS and layers is None:
        msg = f"{ADAPTORS[chosen.variant].title} needs trained layers: pass them as adapter, or a checkpoint as model."
        raise ValueError(msg)
    return chosen


def _class_of(class_name: str | None, file: Product | None, settings: Settings) -> str | None:
    """The class to look for, checked."""
    if class_name is not None:
        check_class_name(class_name)
    if file is not None:
        known = file.class_name
        if class_name not in {None, known}:
            of = "has no words, only images" if known is None else f"is of '{known}'"
            msg = f"The product file {file.path} {of}. Leave out class_name '{class_name}', or write a file of it."
            raise ValueError(msg)
        class_name = known
    if class_name is None and settings.uses_text:
        msg = "Say what the images show, as in class_name='hazelnut'; only with text_weight 0 is no name needed."
        raise ValueError(msg)
    return class_name


def _build(
    settings: Settings, class_name: str | None, cache: EmbeddingCache | None, layers: TrainedLayers | None
) -> tuple[ClipADModel, Backbone]:
    """A model with its text tower, noted for a quick start the next time."""
    from anomalib_clipad.backbones import load_backbone

    with noted() as notes:
        loaded = load_backbone(settings.backbone, settings.pretrained, settings.image_size)
        model = ClipADModel(loaded, settings, cache)
        if model.adapter is not None and layers is not None:
            layers.load(model.adapter, model.settings, model.fingerprint)
        if settings.uses_text and class_name is not None:
            model.setup(class_name)
    if cache is not None and layers is None and not notes:
        quick_start.keep(settings, class_name, model, loaded)
    return model, loaded
