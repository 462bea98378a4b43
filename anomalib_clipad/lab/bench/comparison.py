"""A measured value beside its peer's, and the models that are measured."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from anomalib_clipad.backbones import Backbone
from anomalib_clipad.torch_model import ClipADModel

CLASS = "metal_nut"
SHOTS = 4
"""Normal images of a few-shot model."""


class Comparison(NamedTuple):
    """Something measured beside its peer; both values in the unit that ``what`` names."""

    what: str
    value: float
    peer: str
    peers_value: float

    @property
    def ratio(self) -> float:
        """How many times the peer's value it is."""
        return self.value / self.peers_value


def random_model(backbone: Backbone, **options: Any) -> ClipADModel:
    """A model with random text features: they do not matter for time."""
    model = ClipADModel(backbone, **options)
    model.text_features.normal_()
    model.class_name = CLASS
    return model


def remembering(backbone: Backbone, **options: Any) -> ClipADModel:
    """A ``random_model`` that remembers random normal images."""
    model = random_model(backbone, **options)
    images = torch.randn(SHOTS, 3, model.image_size, model.image_size)
    model.detector.keep(model.detector.describe(images), images[:1])
    return model
