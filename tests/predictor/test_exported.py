"""An exported file is used for what it says of itself, whatever runtime runs it."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import picture
from safetensors.numpy import save_file

from anomalib_clipad.images.alike import identify, to_plain
from anomalib_clipad.images.picture import Picture
from anomalib_clipad.predictor import exported
from anomalib_clipad.predictor.exported import ExportedPredictor
from anomalib_clipad.predictor.runtimes import CALIBRATION, REFERENCES
from anomalib_clipad.verdicts.normal_scores import Limits, NormalScores

NORMAL = NormalScores(np.linspace(0, 1, 9), np.linspace(0, 1, 9), 0.2)
SAID = {
    "version": "0.3.0",
    "class_name": "bottle",
    "image_tower": "1",
    "variant": "sdp",
    "layers": "None",
    "image_size": "64",
    "tap": "reference",
    "smoothing": "8.0",
    "text_weight": "0.5",
    "joining": "sum",
    "tiles": "None",
    "aligned": "False",
    "prompts": "industrial",
    "rvs": "dbscan",
    "rvs_options": "{}",
}


class Means:
    """A runtime whose scores are the means of images, and whose maps are their grey; NaN for the black one."""

    name, precision = "Means 1", "float32"

    def __init__(self, metadata: dict[str, str], inputs: frozenset[str]) -> None:
        self.metadata, self.inputs, self.normal = metadata, inputs, None
        if CALIBRATION in metadata:
            self.normal = NormalScores.from_json(metadata[CALIBRATION])

    def run(self, images: np.ndarray, rate: Any = None, inputs: Any = None) -> dict[str, np.ndarray]:
        score = images.mean(axis=(1, 2, 3))
        return {"pred_score": np.where(score == 0, np.nan, score), "anomaly_map": images.mean(axis=1)[:, None]}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Predictors of a file that says this of itself."""

    def made(product: Path | None = None, inputs: tuple[str, ...] = (), ask: Any = None, **said: Any) -> Any:
        (path := tmp_path / "model.onnx").touch()
        facts = {name: value for name, value in {**SAID, **said}.items() if value is not None}
        runtime = Means(facts, frozenset(inputs))
        monkeypatch.setattr(exported, "load", lambda *_: runtime)
        return ExportedPredictor(path, product, **(ask or {}))

    return made


def product_of(path: Path, **facts: Any) -> Path:
    names = ("memory", "farthest", "undecided", "text_features", "aspect", "joining")
    tensors = {name: np.full((), 1.5, np.float32) for name in names}
    about = {**SAID, **facts, "references": to_plain([identify(picture(0), "0.png")])}
    save_file(tensors, path, {"settings": json.dumps(about)})
    return path


def test_images_have_their_own_scores_and_maps(made: Any) -> None:
    predictor = made()
    images = [predictor.prepare(one) for one in (picture(0), picture(1), picture(2))]
    found = predictor.score(images)
    np.testing.assert_allclose(found.score, [one.mean() for one in images], atol=1e-6)
    np.testing.assert_allclose(found.anomaly_map, [one.mean(axis=0) for one in images], atol=1e-6)


def test_scores_that_are_no_numbers_are_an_error(made: Any) -> None:
    predictor = made()
    with pytest.raises(ValueError, match="The model's scores are no numbers"):
        predictor.score([predictor.prepare(Picture(np.zeros((8, 8, 3), np.uint8)))])


def test_it_decides_as_the_file_says(made: Any) -> None:
    said = made(decision=json.dumps({"score_threshold": 0.3, "map_threshold": 0.1}))
    assert said.own_limits == Limits(0.3, 0.1)
    assert made().own_limits is None, "a file without labels"
    assert made(version=None).own_limits == Limits(0.5, 0.5), "a file of version 0.2"
    assert (said.frame, made(frame="CenterCrop").frame) == ("whole", "CenterCrop")


def test_it_tells_whether_its_thresholds_were_fitted(made: Any) -> None:
    assert made(image_min="0.12", image_threshold="0.4").fitted
    assert not made(image_min="nan", image_threshold="nan").fitted
    assert not made().fitted


def test_another_class_than_the_files_is_refused(made: Any) -> None:
    assert made(ask={"class_name": "bottle"}).class_name == "bottle"
    with pytest.raises(ValueError, match="looks at 'bottle', not at 'cable'"):
        made(ask={"class_name": "cable"})
    with pytest.raises(ValueError, match=r"without any words\. Leave out class_name 'cable'"):
        made(ask={"class_name": "cable"}, class_name="None")


def test_a_calibration_of_another_number_format_is_refused(made: Any) -> None:
    assert made(**{CALIBRATION: NORMAL.to_json()}).normal is not None
    other = NormalScores(NORMAL.image_scores, NORMAL.region_scores, 0.2, computed_in="bfloat16")
    with pytest.raises(ValueError, match="calibrated on scores computed in bfloat16, and Means 1 would compute in flo"):
        made(**{CALIBRATION: other.to_json()})


def test_its_references_are_known(made: Any) -> None:
    own = identify(picture(0), "0.png")
    assert made(**{REFERENCES: json.dumps(to_plain([own]))}).references == (own,)
    assert made().references == ()


@pytest.mark.parametrize("aligned", [False, True])
def test_its_tiles_are_those_of_the_file(made: Any, aligned: bool) -> None:
    predictor = made(tiles="[2, 2]", aligned=str(aligned), patch_size="16", aspect="1.5")
    assert (*predictor.grid, predictor.aspect) == (2, 2, 64, 16, aligned, 1.5)
    predictor.prepare(picture(0, 40, 60))
    with pytest.raises(ValueError, match="too small for tiles"):
        predictor.prepare(picture(0, 20, 20))
    if aligned:
        with pytest.raises(ValueError, match="of another shape"):
            predictor.prepare(picture(0))


def test_a_product_is_passed_where_the_file_takes_one_and_it_computes_the_same(made: Any, tmp_path: Path) -> None:
    product = product_of(tmp_path / "cable.safetensors", class_name="cable")
    inputs = ("memory", "text_features")
    predictor = made(product, inputs, class_name="any: of a product")
    assert (predictor.class_name, predictor.aspect) == ("cable", 1.5)
    assert [one.name for one in predictor.references] == ["0.png"]
    with pytest.raises(ValueError, match=r"serves any product: it takes memory, text_features\. Pass a product file"):
        made(None, inputs)
    with pytest.raises(ValueError, match="takes no product file"):
        made(product)
    with pytest.raises(ValueError, match="of a model with smoothing"):
        made(product_of(tmp_path / "other.safetensors", smoothing="4.0"), inputs)
    with pytest.raises(ValueError, match=r"with class_name 'cable', and .* has class_name 'bottle'"):
        made(product, ("memory",))


def test_a_calibration_of_here_goes_along_to_other_machines(made: Any) -> None:
    predictor = made()
    predictor.keep_normal(NORMAL)
    again = pickle.loads(pickle.dumps(predictor))
    assert again.normal.digest() == NORMAL.digest()
