"""Checkpoints: what they hold, what they restore, what they refuse."""

from pathlib import Path

import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from anomalib.post_processing import PostProcessor
from conftest import GOLDEN, OPTIONS, TINY
from torch import nn

from anomalib_clipad import ClipAD, ClipADModel
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.host.checkpoints import MEMORY, pack, take_normal, unpack
from anomalib_clipad.host.evaluator import SevenMetrics
from anomalib_clipad.vision.memory import Memory


def checkpoint_of(model: ClipAD, engine: Engine, datamodule: MVTecAD, path: Path) -> Path:
    engine.validate(model, datamodule=datamodule, verbose=False)
    engine.trainer.save_checkpoint(path)
    return path


def test_a_checkpoint_restores_everything_but_clip(
    tiny: dict[str, str], engine: Engine, datamodule: MVTecAD, tmp_path: Path
) -> None:
    prompts = tmp_path / "own.yaml"
    prompts.write_text("normal: ['good {}']\nabnormal: ['bad {}']\ntemplates: ['a {}.', 'the {}.']\n")
    model = ClipAD(**tiny, **OPTIONS, prompts=str(prompts))
    engine.validate(model, datamodule=datamodule)
    engine.trainer.save_checkpoint(tmp_path / "model.ckpt")
    prompts.unlink()  # the checkpoint stands alone

    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert not [name for name in content["state_dict"] if "clip." in name]
    restored = ClipAD.load_from_checkpoint(tmp_path / "model.ckpt")
    assert restored.class_name == restored.model.class_name == "bolt"
    assert restored.model.settings == model.model.settings
    assert torch.equal(restored.model.text_features, model.model.text_features)
    assert torch.equal(restored.model.detector.smoothing_matrix, model.model.detector.smoothing_matrix)
    buffers = dict(model.post_processor.named_buffers())
    assert {name: value.item() for name, value in restored.post_processor.named_buffers()} == {
        name: value.item() for name, value in buffers.items()
    }
    assert not any(value.isnan() for value in buffers.values())


@pytest.mark.slow
def test_a_checkpoint_of_another_backbone_is_refused(
    tiny: dict[str, str], engine: Engine, datamodule: MVTecAD, tmp_path: Path
) -> None:
    model = ClipAD(**tiny)
    engine.validate(model, datamodule=datamodule)
    engine.trainer.save_checkpoint(tmp_path / "model.ckpt")
    with pytest.warns(UserWarning, match="RANDOM"):
        other = ClipAD(tiny["backbone"], backbone=tiny["backbone"], pretrained=None)
    with pytest.raises(ValueError, match=r"written with the backbone .*tiny12\.safetensors.*same backbone and weights"):
        engine.test(other, datamodule=datamodule, ckpt_path=tmp_path / "model.ckpt")


@pytest.mark.slow
def test_a_checkpoints_class_replaces_the_arguments_with_a_warning(
    tiny: dict[str, str], engine: Engine, datamodule: MVTecAD, image: Path, tmp_path: Path
) -> None:
    engine.validate(ClipAD(**tiny, class_name="bolt"), datamodule=datamodule)
    engine.trainer.save_checkpoint(tmp_path / "model.ckpt")
    other = ClipAD(**tiny, class_name="nut")
    with pytest.warns(UserWarning, match="for the class 'bolt', which replaces 'nut'"):
        engine.predict(model=other, data_path=image, ckpt_path=tmp_path / "model.ckpt")
    assert other.model.class_name == "bolt"


@pytest.mark.slow
def test_a_pinned_class_is_said_where_the_data_is_of_another(
    engine: Engine, datamodule: MVTecAD, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = checkpoint_of(ClipAD(**TINY, class_name="wood", visualizer=False), engine, datamodule, tmp_path / "m.ckpt")
    other = ClipAD(**TINY, visualizer=False)
    engine.test(other, datamodule=datamodule, ckpt_path=path, verbose=False)
    assert other.model.class_name == "wood"
    assert "The checkpoint is for the class 'wood' and stays with it, though the data is of 'bolt'" in caplog.text


@pytest.mark.slow
def test_components_of_the_model_are_its_own(engine: Engine, datamodule: MVTecAD, tmp_path: Path) -> None:
    """Neither the metrics nor the post-processor have to be those the checkpoint was written with."""
    path = checkpoint_of(ClipAD(**TINY, visualizer=False), engine, datamodule, tmp_path / "m.ckpt")
    assert not [name for name in torch.load(path, weights_only=True)["state_dict"] if name.startswith("evaluator")]
    for own in ({"evaluator": SevenMetrics()}, {"evaluator": False}, {"post_processor": PostProcessor()}):
        model = ClipAD.load_from_checkpoint(path, **TINY, **own)
        assert model.model.class_name == "bolt"
    fitted = ClipAD.load_from_checkpoint(path, **TINY, post_processor=PostProcessor()).post_processor
    assert fitted.image_min.isfinite()


@pytest.mark.slow
def test_settings_after_a_checkpoint_are_the_checkpoints(
    engine: Engine, datamodule: MVTecAD, image: Path, tmp_path: Path
) -> None:
    path = checkpoint_of(ClipAD(**TINY, **OPTIONS, visualizer=False), engine, datamodule, tmp_path / "m.ckpt")
    model = ClipAD(**TINY, visualizer=False, precision="bfloat16")
    engine.predict(model, data_path=image, ckpt_path=path)
    assert model.deployed().metadata["rvs"] == "kde"
    assert model.deployed().metadata["smoothing"] == "4.0"
    assert (model.hparams["rvs"], model.hparams["tap"]) == ("kde", "block")
    assert model.model.settings.precision == "bfloat16"  # a matter of the machine


@pytest.mark.slow
def test_a_checkpoint_of_a_relative_backbone_loads_from_another_folder(
    engine: Engine, datamodule: MVTecAD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(GOLDEN)
    relative = ClipAD(backbone="tiny12.json", pretrained="tiny12.safetensors", visualizer=False)
    path = checkpoint_of(relative, engine, datamodule, tmp_path / "m.ckpt")
    monkeypatch.chdir(tmp_path)
    assert ClipAD.load_from_checkpoint(path).model.class_name == "bolt"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "origin"), [({"options": {}, "trained": True}, "version 0.1 of anomalib_clipad"), (None, "another model")]
)
def test_foreign_checkpoints_are_refused(
    engine: Engine, datamodule: MVTecAD, tmp_path: Path, key: dict | None, origin: str
) -> None:
    path = checkpoint_of(ClipAD(**TINY, visualizer=False), engine, datamodule, tmp_path / "m.ckpt")
    content = torch.load(path, weights_only=True)
    content["clip_ad"] = key
    torch.save(content, path)
    with pytest.raises(ValueError, match=f"written by {origin}; this version cannot read it"):
        ClipAD.load_from_checkpoint(path)


def test_only_a_finished_training_leaves_the_optimizers_state_out(backbone: Backbone) -> None:
    model = ClipADModel(backbone)
    for finished, kept in ((False, [{"state": {}}]), (True, [])):
        checkpoint = {"state_dict": {"model.encoder.x": 1, "model.detector.visual.x": 2, "evaluator.x": 3, "other": 4},
                      "optimizer_states": [{"state": {}}]}  # fmt: skip
        pack(checkpoint, model, finished)
        assert checkpoint["optimizer_states"] == kept
        assert checkpoint["state_dict"] == {"other": 4}


def test_a_checkpoint_of_another_variant_is_refused(backbone: Backbone) -> None:
    checkpoint = {"state_dict": {}}
    pack(checkpoint, ClipADModel(backbone, variant="sdp_plus"), False)
    with pytest.raises(ValueError, match="of variant 'sdp', the checkpoint of 'sdp_plus'"):
        unpack(checkpoint, nn.Linear(2, 2), ClipADModel(backbone))


def test_a_checkpoints_state_gets_the_names_the_module_has(
    backbone: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    module, model = nn.Linear(2, 2), ClipADModel(backbone)
    checkpoint = {"state_dict": {"weight": torch.ones(2, 2)}}
    pack(checkpoint, model, False)
    unpack(checkpoint, module, model)
    assert torch.equal(checkpoint["state_dict"]["weight"], torch.ones(2, 2))
    assert torch.equal(checkpoint["state_dict"]["bias"], module.bias)
    assert not caplog.records
    checkpoint["state_dict"] = {"b": torch.ones(1), "a": torch.ones(1)}
    unpack(checkpoint, module, model)
    assert list(checkpoint["state_dict"]) == ["weight", "bias"]
    assert "The model has no place for a, b of the checkpoint" in caplog.text


def test_a_checkpoint_of_another_tower_is_refused(backbone: Backbone) -> None:
    checkpoint = {"state_dict": {}}
    pack(checkpoint, ClipADModel(backbone), False)
    checkpoint["clip_ad"]["image_tower"] = "another"
    with pytest.raises(ValueError, match="Construct the model with the same backbone and weights"):
        unpack(checkpoint, nn.Linear(2, 2), ClipADModel(backbone))


def test_class_memory_and_settings_are_the_checkpoints_and_the_precision_the_machines(backbone: Backbone) -> None:
    checkpoint = {"state_dict": {}}
    written = ClipADModel(backbone, smoothing=4.0)
    written.setup("bottle")
    memory = Memory(torch.randn(4, 6, 64), 0.3, aspect=1.5)
    checkpoint["state_dict"] = {f"{MEMORY}{name}": value for name, value in memory.state_dict().items()}
    pack(checkpoint, written, False)
    model = ClipADModel(backbone, precision="bfloat16")
    unpack(checkpoint, nn.Linear(2, 2), model)
    assert (model.class_name, model.settings.smoothing, model.settings.precision) == ("bottle", 4.0, "bfloat16")
    restored = model.detector.memory
    assert torch.equal(restored.tokens, memory.tokens)
    assert (float(restored.farthest), float(restored.aspect)) == (pytest.approx(0.3), 1.5)


def test_scores_of_version_0_2_are_taken_out_of_the_weights() -> None:
    score, peak = torch.rand(3), torch.rand(3)
    checkpoint = {
        "state_dict": {"post_processor.normal.peak": peak, "other": 1},
        "callbacks": {"ClipADPostProcessor": {"normal.score": score}},
    }
    assert take_normal(checkpoint) == {"score": score, "peak": peak}
    assert checkpoint == {"state_dict": {"other": 1}, "callbacks": {"ClipADPostProcessor": {}}}
