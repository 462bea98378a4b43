"""Training AF-CLIP and AA-CLIP through anomalib: what changes, what the text is afterwards, a run that goes on."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.engine import Engine
from conftest import TINY
from lightning.pytorch import Callback, Trainer
from neighbours import tiny

from anomalib_clipad import ClipAD
from anomalib_clipad.data import Auxiliary, GeneratedParts
from anomalib_clipad.training.adapter_training import AdapterTraining

FEW = {"good_images": 3, "defective_images": 7, "train_images": 1, "image_size": 64}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generated")


def make_data(root: Path) -> Auxiliary:
    source, target = GeneratedParts(root, "washer", **FEW), GeneratedParts(root, "wood", **FEW)
    return Auxiliary(source, target, ["washer", "leather"], train_batch_size=8)


def make_model(epochs: int = 2, **options: Any) -> ClipAD:
    torch.manual_seed(0)
    given = {"variant": "af_clip", "epochs": epochs, "learning_rate": 1e-3, "visualizer": False}
    return ClipAD(**{**TINY, **given, **options})


def make_engine(folder: Path, *callbacks: Callback) -> Engine:
    quiet = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    return Engine(default_root_dir=folder, callbacks=list(callbacks), **quiet)


class Watch(Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train_loss"]))


@pytest.mark.slow
def test_tokens_and_layer_learn_and_the_text_follows(generated: Path, tmp_path: Path) -> None:
    model, watch = make_model(epochs=4), Watch()
    before = copy.deepcopy(model.model.adapter.state_dict())
    clip = copy.deepcopy(model.model.detector.visual.state_dict())
    engine = make_engine(tmp_path, watch)
    (metrics,) = engine.train(model, datamodule=make_data(generated))
    assert len(metrics) == 7
    assert sum(watch.losses[-2:]) < sum(watch.losses[:2])
    after = model.model.adapter.state_dict()
    assert [name for name, value in before.items() if torch.equal(value, after[name])] == []
    assert all(torch.equal(value, model.model.detector.visual.state_dict()[name]) for name, value in clip.items())
    assert model.configure_optimizers().param_groups[0]["betas"] == (0.5, 0.999)
    assert torch.equal(model.model.text_features, model.model.encode("wood"))

    (written,) = tmp_path.rglob("v0/weights/adapter.safetensors")
    (checkpoint,) = tmp_path.rglob("v0/**/model.ckpt")
    image = torch.rand(1, 3, 70, 70)
    for source in (written, checkpoint):
        again = ClipAD(**TINY, adapter=source, class_name="wood", visualizer=False)
        assert again.model.title == "AF-CLIP"
        again.prepare()
        raw, other = (one.model(one.pre_processor.transform(image)) for one in (model, again))
        assert torch.equal(raw.anomaly_map, other.anomaly_map)
    restored = ClipAD.load_from_checkpoint(checkpoint, **TINY)
    assert torch.equal(restored.model.text_features, model.model.text_features)


@pytest.mark.slow
def test_features_that_are_kept_and_a_run_that_goes_on_change_nothing(generated: Path, tmp_path: Path) -> None:
    whole = make_model(epochs=3, feature_cache="memory")
    make_engine(tmp_path / "whole").fit(whole, datamodule=make_data(generated))

    class Stop(Callback):
        def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        make_engine(tmp_path / "parts", Stop()).fit(make_model(epochs=3), datamodule=make_data(generated))
    (checkpoint,) = (tmp_path / "parts").rglob("v0/**/model.ckpt")
    resumed = make_model(epochs=3)
    make_engine(tmp_path / "parts").fit(resumed, datamodule=make_data(generated), ckpt_path=checkpoint)
    own = resumed.model.adapter.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in whole.model.adapter.state_dict().items())


def test_sdp_is_compared_with_its_own_text(generated: Path) -> None:
    data, model = make_data(generated), make_model()
    data.setup()
    training = AdapterTraining(model.model, data, "none")
    for name in ("washer", "leather"):
        assert torch.equal(training._plain_texts[name], model.model.encoder.encode(name))
        assert torch.equal(training._texts[name], model.model.encode(name))


@pytest.mark.slow
def test_aa_clip_learns_the_text_first_and_then_the_image_side(generated: Path, tmp_path: Path) -> None:
    clip = tiny(tmp_path, quick_gelu=False, size=64).settings()  # its text tower has three blocks and more
    model, states = make_model(epochs=5, variant="aa_clip", learning_rate=5e-3, **clip), []

    class Look(Callback):
        def on_train_epoch_start(self, *args: Any) -> None:
            states.append(copy.deepcopy(model.model.adapter.state_dict()))

    (metrics,) = make_engine(tmp_path, Look()).train(model, datamodule=make_data(generated))
    assert len(metrics) == 7
    states.append(model.model.adapter.state_dict())
    first, then = (
        {name for name, value in old.items() if not torch.equal(value, new[name]) and name != "trained"}
        for old, new in ((states[0], states[1]), (states[1], states[-1]))
    )
    text = {name for name in states[0] if name.startswith("text_")}
    assert first == text
    assert then == set(states[0]) - text - {"trained", "relu"}
    assert torch.equal(model.model.text_features, model.model.encode("wood"))
    (optimizer,) = (found["optimizer"] for found in [model.configure_optimizers()])
    assert [group["lr"] for group in optimizer.param_groups] == [5e-3 / 50, 5e-3]


def test_the_authors_way_of_training_is_the_default() -> None:
    given = {"epochs": None, "learning_rate": None}
    ways = {name: make_model(variant=name, **given) for name in ("sdp_plus", "af_clip", "aa_clip")}
    found = {
        name: (
            model.epochs,
            model.learning_rate,
            model.model.adapter.betas,
            [stage.batch_size for stage in model.model.adapter.course],
        )
        for name, model in ways.items()
    }
    assert found == {
        "sdp_plus": (5, 1e-4, (0.9, 0.999), [8]),
        "af_clip": (2, 1e-4, (0.5, 0.999), [8]),
        "aa_clip": (25, 5e-4, (0.5, 0.999), [16, 2]),
    }
