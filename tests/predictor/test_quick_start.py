"""The second start of a model by name: torch alone, the same scores, and never other weights."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from anomalib_clipad import ClipADModel, load_backbone
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.backbones.sources import SHIPPED
from anomalib_clipad.deploy.exporter import Exporter
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.predictor import quick_start
from anomalib_clipad.settings import Settings
from anomalib_clipad.text.prompts import load_prompts

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
MINI = {"backbone": "clipad-mini"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("ANOMALIB_CLIPAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def is_quick(inspector: Inspector) -> bool:
    return inspector.model._complete is not None


def notes(cache: Path) -> list[Path]:
    return sorted((cache / "start").glob("*.safetensors"))


@pytest.mark.slow
def test_the_second_process_imports_torch_alone(cache: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", IMAGE)
    program = (
        "import sys, numpy as np; from anomalib_clipad import Inspector; "
        f"print(Inspector('gear', backbone='clipad-mini').inspect(np.load({str(tmp_path / 'image.npy')!r})).score); "
        "print(sorted({'anomalib', 'lightning', 'open_clip', 'torchvision', 'sklearn'} & set(sys.modules)))"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split("\n")
        for _ in range(2)
    )
    assert "open_clip" in first[1]
    assert second[1] == "[]"
    assert float(second[0]) == pytest.approx(float(first[0]), abs=1e-6)


def test_scores_are_the_same_and_another_look_is_still_possible(cache: Path) -> None:
    slow, quick = Inspector("gear", **MINI), Inspector("gear", **MINI)
    assert (is_quick(slow), is_quick(quick), len(notes(cache))) == (False, True, 1)
    for inspector in (slow, quick):
        inspector.inspect(IMAGE)
    for look in ({}, {"class_name": "wood"}, {"class_name": "gear", "prompts": "medical"}):
        of_slow, of_quick = (one.again(**look) for one in (slow, quick))
        assert of_quick.score == pytest.approx(of_slow.score, abs=1e-5)
        np.testing.assert_allclose(of_quick.map, of_slow.map, atol=1e-5)
    assert not is_quick(quick)


@pytest.mark.slow
def test_a_model_that_started_quickly_can_be_exported(cache: Path) -> None:
    slow, quick = Inspector("gear", **MINI), Inspector("gear", **MINI)
    graphs = [Exporter(one.model, None, None).graph() for one in (slow, quick)]
    side = slow.model.model.image_size
    images = torch.rand(1, 3, side, side)
    of_slow, of_quick = (graph(images) for graph in graphs)
    torch.testing.assert_close(of_quick.anomaly_map, of_slow.anomaly_map, atol=1e-6, rtol=0)
    assert is_quick(quick)


@pytest.mark.slow
def test_normal_images_go_along_to_other_words(cache: Path) -> None:
    Inspector("gear", **MINI)
    normal = [IMAGE[::-1], IMAGE[:, ::-1]]
    slow, quick = (
        Inspector("gear", **MINI, text_cache=False, references=normal),
        Inspector("gear", **MINI, references=normal),
    )
    assert is_quick(quick)
    for inspector in (slow, quick):
        inspector.inspect(IMAGE)
    assert quick.again("wood").score == pytest.approx(slow.again("wood").score, abs=1e-5)


@pytest.mark.slow
def test_other_weights_are_noticed(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(load_file(SHIPPED), file)
    settings = {**MINI, "pretrained": str(file)}
    before = Inspector("gear", **settings).inspect(IMAGE).score
    assert is_quick(Inspector("gear", **settings))
    tensors = load_file(file)
    tensors["visual.proj"] = tensors["visual.proj"].flip(0)
    save_file(tensors, file)
    changed = Inspector("gear", **settings)
    assert not is_quick(changed)
    assert changed.inspect(IMAGE).score != pytest.approx(before, abs=1e-4)
    assert is_quick(Inspector("gear", **settings))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["bytes", "weights", "text", "fingerprint"])
def test_a_wrong_note_only_costs_time(cache: Path, damage: str) -> None:
    expected = Inspector("gear", **MINI).inspect(IMAGE).score
    (path,) = notes(cache)
    if damage == "bytes":
        path.write_bytes(b"no note")
    else:
        with safe_open(path, "pt") as file:
            note, text = json.loads(file.metadata()["note"]), file.get_tensor("text_features")
        if damage == "text":
            text = text.flip(1).contiguous()
        note |= {"weights": {"weights": "/absent"}, "fingerprint": {"fingerprint": "0"}}.get(damage, {})
        save_file({"text_features": text}, path, {"note": json.dumps(note)})
    inspector = Inspector("gear", **MINI)
    assert not is_quick(inspector)
    assert inspector.inspect(IMAGE).score == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_what_warns_warns_every_time(cache: Path) -> None:
    for _ in range(2):
        with pytest.warns(UserWarning, match="takes the mean of all embeddings"):
            assert not is_quick(Inspector("gear", **MINI, rvs_options={"eps": 1e-6}))
    assert not notes(cache)


@pytest.mark.slow
def test_no_cache_no_note(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Inspector("gear", **MINI, text_cache=False)
    assert not notes(cache)
    monkeypatch.setattr(quick_start, "recall", lambda *_: pytest.fail("it was asked"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Inspector("gear", **MINI, text_cache=False)


# What is noted, and when it is used

OTHERS = {
    "backbone": "ViT-B-16", "pretrained": "openai", "image_size": 96, "prompts": load_prompts("medical"), "rvs": "kde",
    "rvs_options": {"eps": 0.1}, "smoothing": 4.0, "tap": "block", "variant": "sdp_plus", "precision": "bfloat16",
    "text_weight": 0.0, "joining": "sum", "tiles": (2, 2), "aligned": True,
}  # fmt: skip


def test_a_note_is_of_all_settings_and_the_class() -> None:
    base = replace(Settings(), tiles=(1, 2))
    assert set(OTHERS) == {one.name for one in fields(Settings)}, "a new setting needs another value here"
    keys = {quick_start._key(replace(base, **{name: value}), "gear") for name, value in OTHERS.items()}
    keys |= {quick_start._key(base, name) for name in ("gear", "nut", None)}
    assert len(keys) == len(OTHERS) + 3


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clipad-mini's weights in a file of their own."""
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    path.write_bytes(SHIPPED.read_bytes())
    return path


@pytest.fixture(scope="module")
def backbone(weights: Path) -> Backbone:
    return load_backbone("clipad-mini", str(weights))


@pytest.fixture
def note(backbone: Backbone) -> Callable[..., Settings]:
    """Note a model of these settings, whose text features are of no class at all."""

    def note(text: float = 0.5, **options: Any) -> Settings:
        model = ClipADModel(backbone, **options)
        model.text_features.fill_(text)
        quick_start.keep(model.settings, "gear", model, backbone)
        return model.settings

    return note


def test_what_was_noted_is_what_comes_back(note: Callable[..., Settings], backbone: Backbone) -> None:
    settings = note()
    model, loaded = quick_start.recall(settings, "gear")
    assert (model.class_name, model.settings, model.fingerprint) == ("gear", settings, backbone.fingerprint)
    assert (loaded.mean, loaded.std) == (backbone.mean, backbone.std)
    assert model.text_features.eq(0.5).all()
    assert quick_start.recall(settings, "nut") is None


def test_without_words_there_is_no_class(note: Callable[..., Settings]) -> None:
    settings = note(float("nan"), text_weight=0.0)
    assert quick_start.recall(settings, "gear")[0].class_name is None


@pytest.mark.parametrize(("text", "options"), [(float("nan"), {}), (0.5, {"precision": "bfloat16"})], ids=str)
def test_what_cannot_start_so_does_not(note: Callable[..., Settings], text: float, options: dict) -> None:
    assert quick_start.recall(note(text, **options), "gear") is None


def test_another_text_tower_in_the_weights_file_is_noticed(note: Callable[..., Settings], weights: Path) -> None:
    """Of the same size and the same time, as of a file that was copied with both; and a time alone means nothing."""
    settings, content, times = note(), weights.read_bytes(), weights.stat()
    changed = load_file(weights)
    with safe_open(weights, "pt") as file:
        said = file.metadata()
    changed["positional_embedding"] = changed["positional_embedding"].flip(0)
    save_file(changed, weights, said)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert weights.stat().st_size == times.st_size
    assert quick_start.recall(settings, "gear") is None
    weights.write_bytes(content)
    assert quick_start.recall(settings, "gear") is not None


def test_text_features_of_another_arithmetic_are_another_entry(note: Callable[..., Settings]) -> None:
    settings, before = note(), torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    found = quick_start.recall(settings, "gear")
    torch.backends.mkldnn.matmul.fp32_precision = before
    assert found is None


@pytest.mark.parametrize("damage", ["text", "fingerprint"])
def test_a_note_of_something_else_is_not_used(note: Callable[..., Settings], cache: Path, damage: str) -> None:
    settings = note()
    (path,) = notes(cache)
    with safe_open(path, "pt") as file:
        facts, text = json.loads(file.metadata()["note"]), file.get_tensor("text_features")
    if damage == "text":
        text = text + 1
    else:
        facts["fingerprint"] = "0"
    save_file({"text_features": text}, path, {"note": json.dumps(facts)})
    assert quick_start.recall(settings, "gear") is None


def test_a_backbone_whose_configuration_is_in_a_file_is_not_noted(cache: Path, tiny: dict[str, str]) -> None:
    loaded = load_backbone(**tiny)
    model = ClipADModel(loaded)
    model.setup("gear")
    quick_start.keep(model.settings, "gear", model, loaded)
    assert notes(cache) == []
