"""ClipADModel: the reference's maps and probabilities, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from anomalib.data import InferenceBatch
from conftest import CLASSES, TINY
from torch import Tensor

from anomalib_clipad import ClipADModel, load_backbone
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.settings import Settings


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(("smoothing", "key"), [(0, "map_unsmoothed"), (8, "map"), (2, "map_sigma2")])
def test_maps_are_the_references(
    backbone: Backbone, expected: dict[str, Tensor], name: str, smoothing: float, key: str
) -> None:
    model = ClipADModel(backbone, smoothing=smoothing)
    model.setup(name)
    output = model(expected["images"])
    assert isinstance(output, InferenceBatch)
    torch.testing.assert_close(output.anomaly_map, expected[f"sdp/{name}/{key}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CLASSES)
def test_probabilities_and_map_maxima_are_the_references(
    backbone: Backbone, expected: dict[str, Tensor], name: str
) -> None:
    model = ClipADModel(backbone)
    model.setup(name)
    output = model(expected["images"])
    torch.testing.assert_close(output.pred_score, expected[f"sdp/{name}/text_prob"], atol=1e-4, rtol=0)
    maxima = output.anomaly_map.amax(dim=(1, 2))
    torch.testing.assert_close(maxima, expected[f"sdp/{name}/map_max"], atol=1e-4, rtol=0)


def test_an_image_gets_the_same_result_in_any_batch(model: ClipADModel, expected: dict[str, Tensor]) -> None:
    together = model(expected["images"])
    alone = [model(image[None]) for image in expected["images"]]
    maps = torch.cat([output.anomaly_map for output in alone])
    torch.testing.assert_close(together.anomaly_map, maps, atol=1e-6, rtol=0)
    scores = torch.cat([output.pred_score for output in alone])
    torch.testing.assert_close(together.pred_score, scores, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_every_option_has_an_effect(backbone: Backbone, expected: dict[str, Tensor]) -> None:
    own = {"normal": ["good {}"], "abnormal": ["bad {}"], "templates": ["a {}."]}
    options = [{}, {"rvs": "pca"}, {"rvs": "kde", "rvs_options": {"bandwidth": 0.01}}, {"smoothing": 3}]
    options += [{"tap": "block"}, {"prompts": own}]
    maps = []
    for option in options:
        model = ClipADModel(backbone, **option)
        model.setup("bottle")
        maps.append(model(expected["images"]).anomaly_map)
    assert all(not torch.allclose(a, b, atol=1e-7) for i, a in enumerate(maps) for b in maps[:i])


def test_settings_restore_a_model(backbone: Backbone) -> None:
    model = ClipADModel(backbone, rvs="kde", rvs_options={"bandwidth": 0.2}, smoothing=3, tap="block")
    twin = ClipADModel(backbone)
    twin.configure(Settings.of(**model.settings.as_dict()))
    assert twin.settings == model.settings
    assert torch.equal(twin.detector.smoothing_matrix, model.detector.smoothing_matrix)
    twin.setup("bottle")
    model.setup("bottle")
    assert torch.equal(twin.text_features, model.text_features)


def test_settings_name_the_backbone_that_was_given(backbone: Backbone) -> None:
    settings = ClipADModel(backbone, Settings(backbone="ViT-L-14")).settings
    assert (settings.backbone, settings.pretrained, settings.image_size) == (*TINY.values(), 64)


def test_text_may_be_one_pair_per_image(backbone: Backbone, expected: dict[str, Tensor]) -> None:
    model, images = ClipADModel(backbone, variant="sdp_plus"), expected["images"][:2]
    texts = torch.stack([model.encoder.encode(name) for name in CLASSES])
    together = model.detector(images, texts)
    for index, text in enumerate(texts):
        alone = model.detector(images[index : index + 1], text)
        torch.testing.assert_close(together.anomaly_map[index], alone.anomaly_map[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(together.pred_score[index], alone.pred_score[0], atol=1e-5, rtol=0)  # cosines x 100


def test_a_backbone_is_never_changed_by_who_uses_it(backbone: Backbone) -> None:
    before = {name: value.clone() for name, value in backbone.clip.state_dict().items()}
    ClipADModel(backbone, precision="bfloat16").double()
    after = backbone.clip.state_dict()
    assert all(after[name].dtype == value.dtype and torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_that_was_cast_says_what_to_do_instead(model: ClipADModel, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"was cast to (float64|bfloat16).*construct it with precision='bfloat16'"):
        model.to(dtype)(torch.zeros(1, 3, 64, 64, dtype=dtype))


def test_another_default_dtype_changes_nothing(backbone: Backbone, expected: dict[str, Tensor]) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        model = ClipADModel(load_backbone(**TINY), variant="sdp_plus")
        model.setup("bottle")
        scores = model(expected["images"]).pred_score
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(scores, expected["sdp/bottle/text_prob"], atol=1e-4, rtol=0)


def test_clip_is_frozen_and_stays_in_evaluation_mode(model: ClipADModel) -> None:
    model.train()
    assert not any(module.training for module in (*model.encoder.modules(), *model.detector.visual.modules()))
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_setup_comes_first(backbone: Backbone) -> None:
    with pytest.raises(RuntimeError, match=r"call setup\(class_name\) first"):
        ClipADModel(backbone)(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("shape", [(1, 3, 48, 48), (1, 1, 64, 64), (3, 64, 64), (1, 3, 64, 80)])
def test_images_of_another_shape_are_refused(model: ClipADModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected images of shape \(B, 3, 64, 64\); got") as error:
        model(torch.zeros(shape))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rvs": "median"}, "Unknown RVS method 'median'"),
        ({"rvs_options": {"epsilon": 1}}, "Unknown option 'epsilon'"),
        ({"smoothing": -1}, "smoothing has to be a standard deviation in pixels"),
        ({"smoothing": float("nan")}, "smoothing has to be a standard deviation"),
        ({"precision": "int4"}, "Unknown precision 'int4'; expected one of float32, bfloat16, float16"),
        ({"tap": "clean"}, "Unknown tap 'clean'; expected one of reference, block"),
        ({"prompts": "medicine"}, "No prompt set 'medicine'"),
    ],
)
def test_wrong_options_are_explained(backbone: Backbone, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipADModel(backbone, **options)


@pytest.mark.parametrize(("name", "problem"), [("", "is empty"), ("  ", "is empty"), (12, "is no text: 12")])
def test_a_class_name_has_to_say_something(backbone: Backbone, name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"class name {problem}; name the object"):
        ClipADModel(backbone).setup(name)


@pytest.mark.slow
def test_bfloat16_changes_maps_a_little_and_keeps_float32_outside(expected: dict[str, Tensor]) -> None:
    outputs = []
    for precision in ("float32", "bfloat16"):
        model = ClipADModel(load_backbone(**TINY), precision=precision)
        model.setup("bottle")
        assert model.text_features.dtype == torch.float32
        outputs.append(model(expected["images"]))
    exact, rounded = outputs
    assert rounded.anomaly_map.dtype == rounded.pred_score.dtype == torch.float32
    difference = (rounded.anomaly_map - exact.anomaly_map).abs().max()
    assert 0 < difference < 0.1 * exact.anomaly_map.abs().max()


def test_float16_is_refused_on_a_cpu(expected: dict[str, Tensor]) -> None:
    model = ClipADModel(load_backbone(**TINY), precision="float16")
    model.setup("bottle")
    with pytest.raises(ValueError, match="float16 does not run on a CPU; use precision='bfloat16' or 'float32'"):
        model(expected["images"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_the_model_is_one_graph_with_the_same_results(
    backbone: Backbone, expected: dict[str, Tensor], name: str
) -> None:
    model = ClipADModel(backbone)
    model.setup(name)
    output = torch.compile(model, backend="aot_eager", fullgraph=True)(expected["images"])
    torch.testing.assert_close(output.anomaly_map, expected[f"sdp/{name}/map"], atol=1e-4, rtol=0)
    torch.testing.assert_close(output.pred_score, expected[f"sdp/{name}/text_prob"], atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_code_has_the_same_results(tmp_path: Path) -> None:
    shape = json.loads(Path(TINY["backbone"]).read_text())
    shape["vision_cfg"]["layers"] = 4
    (tmp_path / "four.json").write_text(json.dumps(shape))
    model = ClipADModel(load_backbone(str(tmp_path / "four.json"), None))
    model.setup("bottle")
    images = torch.randn(2, 3, model.image_size, model.image_size)
    output, compiled = model(images), torch.compile(model)(images)
    torch.testing.assert_close(compiled.anomaly_map, output.anomaly_map, atol=1e-5, rtol=0)
    torch.testing.assert_close(compiled.pred_score, output.pred_score, atol=1e-4, rtol=0)
