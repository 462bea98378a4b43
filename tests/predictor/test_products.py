"""A product file is taken by what computes the same, and by nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from anomalib_clipad import ClipADModel
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.images.picture import Picture
from anomalib_clipad.predictor.live import LivePredictor
from anomalib_clipad.predictor.products import Product, about, load_product, read_product, save_product

TOWER = ["image_tower", "variant", "layers", "image_size", "tap", "smoothing", "text_weight", "joining", "tiles"]
TOWER += ["aligned"]
TEXT = ["class_name", "prompts", "rvs", "rvs_options"]


def predictor_of(backbone: Backbone, class_name: str = "bottle", **settings: Any) -> LivePredictor:
    model = ClipADModel(backbone, **settings)
    if model.settings.uses_text:
        model.setup(class_name)
    return LivePredictor(model, lambda images: images)


@pytest.fixture
def path(backbone: Backbone, tmp_path: Path) -> Path:
    """The product file of a bottle, with two references."""
    predictor = predictor_of(backbone)
    noise = np.random.default_rng(0).integers(256, size=(2, 64, 64, 3), dtype=np.uint8)
    predictor.fit([predictor.show(Picture(pixels), f"{row}.png", reference=True) for row, pixels in enumerate(noise)])
    save_product(tmp_path / "bottle.safetensors", predictor)
    return tmp_path / "bottle.safetensors"


def rewritten(path: Path, without: str = "", **changes: Any) -> Path:
    """The same file with other facts, or without one."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    facts = {**json.loads(metadata["settings"]), **changes}
    facts.pop(without, None)
    metadata["settings"] = json.dumps(facts)
    save_file(load_file(path), path, metadata)
    return path


def test_a_file_is_what_was_written(path: Path, backbone: Backbone) -> None:
    product = read_product(path)
    assert (product.class_name, [one.name for one in product.references]) == ("bottle", ["0.png", "1.png"])
    loaded = load_product(read_product(path), predictor_of(backbone).model)
    assert loaded.references == product.references
    assert loaded.class_name == "bottle"


@pytest.mark.parametrize("name", TOWER + TEXT)
def test_one_that_computes_otherwise_is_refused(path: Path, name: str) -> None:
    product = read_product(path)
    same: dict[str, Any] = product.about
    product.check(same, "this model", brings_text=True)
    other = {**same, name: "another"}
    with pytest.raises(ValueError, match="scores would be others"):
        product.check(other, "this model", brings_text=True)
    del other[name]
    with pytest.raises(ValueError, match=f"this model does not say its {name}"):
        product.check(other, "this model", brings_text=True)


@pytest.mark.parametrize("name", TEXT)
def test_what_takes_its_text_from_the_file_may_have_another(path: Path, name: str) -> None:
    product = read_product(path)
    product.check({**product.about, name: "another"}, "graph.onnx", brings_text=False)


def test_where_the_text_has_no_share_it_is_not_compared(path: Path) -> None:
    product: Product = read_product(rewritten(path, text_weight=0.0))
    product.check({**product.about, "prompts": "medical"}, "this model", brings_text=True)


def test_numbers_are_equal_however_they_are_written(path: Path) -> None:
    product = read_product(path)
    as_text = {name: str(value) for name, value in product.about.items()}
    product.check({**as_text, "smoothing": "8", "aligned": "False"}, "graph.onnx", brings_text=True)


@pytest.mark.parametrize("name", ["image_tower", "layers", "text_weight", "class_name"])
def test_a_file_that_lacks_a_fact_is_damaged(path: Path, name: str) -> None:
    variant = "sdp_plus" if name == "layers" else "sdp"  # where there are none, version 0.2 does not say so
    with pytest.raises(ValueError, match=rf"is no product file, or is damaged \(KeyError\('{name}'\)\)"):
        read_product(rewritten(path, name, **({} if name == "variant" else {"variant": variant})))


def test_a_model_of_another_class_is_refused_and_one_without_takes_it(path: Path, backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="with class_name 'bottle', and this model has class_name 'cable'"):
        load_product(read_product(path), predictor_of(backbone, "cable").model)
    assert load_product(read_product(path), ClipADModel(backbone)).class_name == "bottle"


@pytest.mark.parametrize("settings", [{"smoothing": 4.0}, {"tap": "block"}, {"text_weight": 0.2}], ids=str)
def test_a_model_of_other_settings_is_refused(path: Path, backbone: Backbone, settings: dict) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"is of a model with {name}"):
        load_product(read_product(path), predictor_of(backbone, **settings).model)


def test_nothing_is_written_without_references_or_class(backbone: Backbone, tmp_path: Path) -> None:
    nameless = LivePredictor(ClipADModel(backbone), lambda images: images)
    nameless.model.detector.memory = None
    for predictor in (predictor_of(backbone), nameless):
        with pytest.raises(ValueError, match="holds normal images and, unless text_weight is 0, a class name"):
            save_product(tmp_path / "none.safetensors", predictor)
    assert not list(tmp_path.iterdir())
    assert about(nameless.model)["class_name"] is None
