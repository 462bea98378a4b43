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
