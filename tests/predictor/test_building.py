"""A model by name: what a product file says is taken or refused, and what cannot be right is refused."""

from pathlib import Path

import numpy as np
import pytest
from conftest import shallow

from anomalib_clipad.images.picture import Picture
from anomalib_clipad.predictor import quick_start
from anomalib_clipad.predictor.building import by_name
from anomalib_clipad.predictor.products import save_product


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of models with a smoothing of 4 pixels, with words and without."""
    files = {}
    for name, share in (("bottle", 0.5), ("wordless", 0.0)):
        predictor = by_name("bottle", **shallow(), smoothing=4.0, text_weight=share)
        pixels = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
        predictor.fit([predictor.show(Picture(pixels), "normal.png", reference=True)])
        files[name] = tmp_path_factory.mktemp("products") / f"{name}.safetensors"
        save_product(files[name], predictor)
    return files


def test_a_product_file_brings_class_settings_and_references(products: dict[str, Path]) -> None:
    predictor = by_name(None, product=products["bottle"])
    assert (predictor.class_name, predictor.model.settings.smoothing) == ("bottle", 4.0)
    assert [one.name for one in predictor.references] == ["normal.png"]
    assert predictor.model.detector.memory is not None
    assert by_name("bottle", product=products["bottle"]).class_name == "bottle"


def test_other_settings_than_those_of_the_file_are_refused(products: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"of a model with smoothing 4\.0, and this model has smoothing 8\.0"):
        by_name(None, product=products["bottle"], smoothing=8.0)


@pytest.mark.parametrize(("name", "said"), [("bottle", "is of 'bottle'"), ("wordless", "has no words")])
def test_another_class_than_that_of_the_file_is_refused(products: dict[str, Path], name: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"{said}.* Leave out class_name 'cable'"):
        by_name("cable", product=products[name])


def test_a_class_name_is_needed_where_the_text_has_a_share() -> None:
    with pytest.raises(ValueError, match="Say what the images show"):
        by_name(None, **shallow())
    assert by_name(None, **shallow(), text_weight=0.0).class_name is None


def test_a_class_name_is_checked_where_the_text_has_none() -> None:
    with pytest.raises(ValueError, match="class name"):
        by_name(" ", **shallow(), text_weight=0.0)


def test_sdp_plus_needs_trained_layers() -> None:
    with pytest.raises(ValueError, match="SDP\\+ needs trained layers"):
        by_name("bottle", **shallow(), variant="sdp_plus")


def test_what_warns_is_not_noted_for_a_quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = []
    monkeypatch.setattr(quick_start, "keep", lambda settings, *_: noted.append(settings.rvs_options))
    by_name("bottle", **shallow())
    with pytest.warns(UserWarning, match="takes the mean of all embeddings"):
        by_name("bottle", **shallow(), rvs_options={"eps": 1e-6})
    by_name("bottle", **shallow(), text_cache=False)
    assert noted == [{}]
