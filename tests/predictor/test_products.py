"""Product files: all that they say is compared with whoever takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomalib_clipad.predictor.products import Product

ABOUT = {
    "class_name": "nut",
    "image_tower": "a1b2",
    "layers": "None",
    "backbone": "ViT-B-16",
    "pretrained": "laion2b",
    "image_size": 240,
    "rvs": "mean",
    "rvs_options": {},
    "prompts": "industrial",
    "smoothing": 8,
    "text_weight": 0.5,
    "tiles": None,
}


def product(**others: object) -> Product:
    return Product(Path("p.safetensors"), {"memory": np.zeros((4, 1, 2))}, {**ABOUT, **others}, ())


def as_text(**others: object) -> dict[str, str]:
    """Settings as the metadata of an exported file has them."""
    return {name: str(value) for name, value in {**ABOUT, **others}.items()}


def test_numbers_are_equal_however_they_are_written() -> None:
    product().check(as_text(smoothing=8.0), "it", brings_text=True)
    product(text_weight=0).check(as_text(text_weight=0.0), "it", brings_text=True)


@pytest.mark.parametrize("name", sorted(ABOUT.keys() - {"backbone", "pretrained"}))
def test_every_setting_of_the_file_counts(name: str) -> None:
    """But the name of the tower and its weights, whose digest says more."""
    with pytest.raises(ValueError, match="image tower|with " + name):
        product().check(as_text(**{name: "another"}), "it", brings_text=True)
    with pytest.raises(ValueError, match=f"does not say its {name}"):
        product().check({key: value for key, value in as_text().items() if key != name}, "it", brings_text=True)


def test_a_tower_may_be_called_otherwise() -> None:
    product().check(as_text(backbone="elsewhere.json", pretrained="w.safetensors"), "it", brings_text=True)


def test_words_count_where_there_are_two_of_them() -> None:
    words = {"class_name": "bolt", "prompts": "medical", "rvs": "pca"}
    product().check(as_text(**words), "it", brings_text=False)
    product(text_weight=0).check(as_text(**words, text_weight=0), "it", brings_text=True)
