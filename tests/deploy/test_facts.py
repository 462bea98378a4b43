"""What an exported file says of itself: enough for another door to decide as it does, or to refuse it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from conftest import GOLDEN, save, shallow
from safetensors.torch import load_file
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize

from anomalib_clipad import ClipAD
from anomalib_clipad.deploy.graph import InferenceGraph
from anomalib_clipad.host.post_processor import ClipADPostProcessor
from anomalib_clipad.vision.detector import Prediction


def shown(**options: Any) -> ClipAD:
    return ClipAD(**{**shallow(), "class_name": "bolt", "visualizer": False, **options})


def fitted(**options: Any) -> ClipAD:
    """A model with statistics, as of a validation set."""
    post_processor = ClipADPostProcessor(**options)
    values = {"probability_min": 0.1, "probability_max": 0.9, "peak_min": 0.0, "peak_max": 0.02}
    values |= {"image_min": 0.2, "image_max": 1.8, "pixel_min": -0.01, "pixel_max": 0.03}
    values |= {"_image_threshold": 0.7, "_pixel_threshold": 0.004}
    model = shown(post_processor=post_processor)
    model.prepare()
    for name, value in values.items():
        getattr(post_processor, name).fill_(value)
    return model


def thresholds(graph: InferenceGraph) -> tuple[float, float]:
    said = json.loads(graph.metadata["decision"])
    return said["score_threshold"], said["map_threshold"]


def labels_follow(graph: InferenceGraph, images: torch.Tensor, **inputs: torch.Tensor) -> bool:
    """Whether labels and masks are what the thresholds make of scores and maps, and are of both kinds at once."""
    found: Prediction = graph(images, **inputs)
    of_scores, of_maps = thresholds(graph)
    assert found.anomaly_map is not None
    assert torch.equal(found.pred_label, found.pred_score > of_scores)
    assert torch.equal(found.pred_mask, found.anomaly_map > of_maps)
    return True


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.rand(3, 3, 80, 70, generator=torch.Generator().manual_seed(5))


def test_the_decision_is_that_of_the_sensitivities(noise: torch.Tensor) -> None:
    graph = fitted(image_sensitivity=0.3, pixel_sensitivity=0.45).deployed()
    assert thresholds(graph) == pytest.approx((0.7, 0.55))
    assert graph.metadata["normalized"] == "True"
    assert labels_follow(graph, noise)


def test_the_decision_is_that_of_raw_thresholds_where_normalisation_is_off(noise: torch.Tensor) -> None:
    graph = fitted(enable_normalization=False).deployed()
    assert thresholds(graph) == pytest.approx((0.7, 0.004))
    assert graph.metadata["normalized"] == "False"
    assert labels_follow(graph, noise)
    unfitted = shown(post_processor=ClipADPostProcessor(enable_normalization=False)).deployed()
    assert thresholds(unfitted) == (0.5, 0.0)
    assert labels_follow(unfitted, noise)


@pytest.mark.parametrize(
    "options",
    [
        {"post_processor": ClipADPostProcessor(enable_thresholding=False)},
        {"post_processor": PostProcessor()},
        {"post_processor": False},
    ],
    ids=["no labels", "foreign", "none"],
)
def test_without_labels_of_ours_there_is_no_decision(options: dict) -> None:
    model = shown(**options)
    assert "decision" not in model.deployed().metadata
    assert model.deployed().metadata["normalized"] == str(isinstance(model.post_processor, ClipADPostProcessor))


@pytest.mark.parametrize("inputs", [(True, False), (False, True), (True, True)], ids=["text", "memory", "both"])
def test_a_graph_for_any_product_keeps_sensitivities_and_no_statistics(
    inputs: tuple[bool, bool], noise: torch.Tensor
) -> None:
    graph = fitted(image_sensitivity=0.3, pixel_sensitivity=0.45).deployed(*inputs)
    assert thresholds(graph) == pytest.approx((0.7, 0.55))
    assert {graph.metadata[name] for name in ("image_min", "pixel_max", "image_threshold")} == {"nan"}
    assert graph.metadata["class_name"] == ("any: text_features is an input" if inputs[0] else "bolt")
    assert labels_follow(graph, noise, **graph.further_inputs())
    unlabelled = fitted(enable_thresholding=False).deployed(*inputs)
    assert "decision" not in unlabelled.metadata
    assert unlabelled(noise, **unlabelled.further_inputs()).pred_label is None


def test_layers_are_told_apart(tmp_path: Path) -> None:
    expected = load_file(GOLDEN / "tiny12_expected.safetensors")
    layers = {name.removeprefix("adapter/"): value for name, value in expected.items() if name.startswith("adapter/")}

    def said(name: str) -> str:
        torch.save({"linear_layers": layers}, tmp_path / name)
        return shown(adapter=str(tmp_path / name)).deployed().metadata["layers"]

    first, again = said("first.pth"), said("again.pth")
    layers["fc.2.bias"] = layers["fc.2.bias"] + 1e-3
    assert first == again != said("other.pth")
    assert len(first) == 64


def test_towers_are_told_apart() -> None:
    assert shown().deployed().metadata["image_tower"] == shown().model.fingerprint
    random = shown(pretrained=None).deployed().metadata["image_tower"]
    assert random != shown().deployed().metadata["image_tower"]


def test_the_shape_of_normal_images_is_said_but_not_where_they_are_an_input(tmp_path: Path) -> None:
    for index in range(2):
        save(tmp_path / f"normal/{index}.png", np.random.default_rng(index).integers(0, 255, (80, 100, 3), np.uint8))
    model = shown(few_shot_source=tmp_path / "normal")
    assert float(model.deployed().metadata["aspect"]) == pytest.approx(1.25)
    assert model.deployed(memory_input=True).metadata["aspect"] == "0.0"


def test_the_frame_is_that_of_the_models_own_pre_processor() -> None:
    normalize = Normalize([0.5] * 3, [0.2] * 3)
    cropped = PreProcessor(Compose([Resize((80, 80)), CenterCrop(64), normalize]))
    assert shown(pre_processor=cropped).deployed().metadata["frame"] == "CenterCrop"
    assert shown().deployed().metadata["frame"] == "whole"
    assert shown(pre_processor=False).deployed().metadata["frame"] == "whole"


@pytest.fixture
def calibrated(tmp_path: Path) -> ClipAD:
    """A few-shot model whose four references, each left out in turn, set its false-alarm rate of 0.25."""
    for index in range(4):
        save(tmp_path / f"normal/{index}.png", np.random.default_rng(index).integers(0, 255, (80, 70, 3), np.uint8))
    return shown(few_shot_source=tmp_path / "normal", false_alarm_rate=0.25, calibration_source="references")


def test_a_graph_decides_at_the_models_rate_and_at_one_that_comes_with_the_images(
    calibrated: ClipAD, noise: torch.Tensor
) -> None:
    graph = calibrated.deployed()
    assert graph.false_alarm_rate == 0.25
    for rate in (0.25, 0.45, 0.95):
        found: Any = graph(noise, false_alarm_rate=None if rate == 0.25 else rate)
        assert torch.equal(found.pred_label, found.p_value <= rate)
    with pytest.raises(ValueError, match="images"):
        graph(noise, false_alarm_rate=0.1)


def test_a_compressed_file_is_not_given_the_scores_of_the_model(calibrated: ClipAD) -> None:
    with pytest.raises(ValueError, match="has to be calibrated itself, and the calibration images are not at hand"):
        calibrated._exporter()._normal(lambda *_: {}, compressed=True)


def test_a_memory_and_its_scale_count_where_they_are_inputs(calibrated: ClipAD, noise: torch.Tensor) -> None:
    calibrated.prepare()
    graph, detector = calibrated.deployed(memory_input=True), calibrated.model.detector
    assert graph.detector.memory is None
    assert detector.memory is not None
    midpoint, joining = detector.midpoint, torch.tensor(detector.joining)
    found = graph(noise, memory=detector.memory.tokens, midpoint=midpoint, joining=joining)
    torch.testing.assert_close(found.pred_score, calibrated(noise).pred_score, atol=1e-5, rtol=0)
    other = graph(noise, memory=detector.memory.tokens, midpoint=midpoint / 2, joining=joining)
    assert (other.pred_score - found.pred_score).min() > 0.01


def test_a_graph_has_a_post_processor_of_its_own(noise: torch.Tensor) -> None:
    model = fitted()
    graph = model.deployed()
    before = graph(noise).pred_score
    assert isinstance(model.post_processor, ClipADPostProcessor)
    model.post_processor.image_min.fill_(-5.0)
    assert torch.equal(graph(noise).pred_score, before)
