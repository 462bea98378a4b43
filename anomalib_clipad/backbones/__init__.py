"""CLIP backbones: where they come from and what they have to be."""

from .loading import Backbone, load_backbone

__all__ = ["Backbone", "load_backbone"]
