"""Training SDP+ through anomalib: what it changes, what it leaves alone, how it goes on after a stop."""

import copy
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib import LearningType
from conftest import TINY, make_engine
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors import safe_open
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torchvision.transforms.v2 import RandomHorizontalFlip

from anomalib_clipad import ClipAD
from anomalib_clipad.adaptors import sdp_plus as layers_of_sdp_plus
from anomalib_clipad.data import Auxiliary, GeneratedParts
from anomalib_clipad.training import adapter_training

FEW = {"good_images": 3, "defective_images": 7, "train_images": 1, "image_size": 64}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generated")


@pytest.fixture
def data(generated: Path) -> Auxiliary:
    return make_data(generated)


def make_data(root: Path, **options: Any) -> Auxiliary:
    source, target = GeneratedParts(root, "washer", **FEW), GeneratedParts(root, "wood", **FEW)
    return Auxiliary(source, target, ["washer", "leather"], **{"train_batch_size": 6, **options})


def make_model(epochs: int = 2, **options: Any) -> ClipAD:
    torch.manual_seed(0)
    return ClipAD(**TINY, variant="sdp_plus", epochs=epochs, learning_rate=1e-2, visualizer=False, **options)


def layers(model: ClipAD) -> dict[str, Tensor]:
    return copy.deepcopy(model.model.detector.adapter.state_dict())


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, right[name]) for name, value in left.items())


class Watch(Callback):
    """Keeps losses and gradients, and looks whether CLIP stays in evaluation mode."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.with_gradient: set[str] = set()
        self.logged: set[str] = set()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train_loss"]))
        self.logged |= set(trainer.callback_metrics)
        assert not any(module.training for module in pl_module.model.detector.visual.modules())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.with_gradient |= {name for name, p in pl_module.named_parameters() if p.grad is not None}


@pytest.mark.slow
def test_training_changes_the_layers_and_nothing_of_clip(data: Auxiliary, tmp_path: Path) -> None:
    model, watch = make_model(epochs=3), Watch()
    clip, before = copy.deepcopy(model.model.detector.visual.state_dict()), layers(model)
    assert model.learning_type is LearningType.ONE_CLASS
    engine = make_engine(tmp_path, watch)
    (metrics,) = engine.train(model, datamodule=data)
    assert model.model.detector.adapter.trained
    assert model.learning_type is LearningType.ZERO_SHOT
    assert len(metrics) == 7
    assert len(watch.losses) == 3 * 4
    assert sum(watch.losses[-4:]) < sum(watch.losses[:4])
    assert same(clip, model.model.detector.visual.state_dict())
    assert watch.with_gradient == {
        f"model.detector.adapter.fc.{k}.{part}" for k in range(4) for part in ("weight", "bias")
    }
    assert not same(before, layers(model))
    assert {f"train_{term}_{layer}" for term in ("focal", "dice") for layer in range(1, 5)} <= watch.logged


def test_no_activation_of_clip_is_kept(data: Auxiliary, expected: dict[str, Tensor]) -> None:
    patches = make_model().model.tokens(expected["images"])
    assert all(tokens.grad_fn is None and not tokens.requires_grad for tokens in patches)


@pytest.mark.slow
def test_each_picture_is_compared_with_its_own_categorys_text(data: Auxiliary, tmp_path: Path) -> None:
    model, seen = make_model(epochs=1), []
    forward = model.model.detector.adapter.forward

    def look(patches: list[Tensor], text: Tensor) -> Tensor:
        if text.ndim == 3:
            seen.extend(text)
        return forward(patches, text)

    model.model.detector.adapter.forward = look  # type: ignore[method-assign]
    make_engine(tmp_path).fit(model, datamodule=data)
    names = [data.class_names[str(path)] for path in data.train_data.samples.image_path]
    assert len(seen) == len(names) == 20
    for text, name in zip(seen, names, strict=True):
        assert torch.equal(text, model.model.encoder.encode(name))


@pytest.mark.slow
def test_training_prompts_have_the_rvs_options_of_their_data_set(generated: Path, tmp_path: Path) -> None:
    model, source = make_model(epochs=1), {"eps": 0.05, "min_samples": 2}
    training = adapter_training.AdapterTraining(model.model, set_up(make_data(generated, rvs_options=source)), "none")
    own = adapter_training.AdapterTraining(model.model, set_up(make_data(generated)), "none")
    for name in ("washer", "leather"):
        assert torch.equal(training._texts[name], model.model.encoder.encode(name, source))
        assert torch.equal(own._texts[name], model.model.encoder.encode(name))
        assert not torch.equal(own._texts[name], training._texts[name])
    with pytest.raises(ValueError, match="Unknown option 'bandwidth' of the RVS method 'dbscan'"):
        adapter_training.AdapterTraining(
            model.model, set_up(make_data(generated, rvs_options={"bandwidth": 1})), "none"
        )


def set_up(data: Auxiliary) -> Auxiliary:
    data.setup()
    return data


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_resumed_training_ends_like_an_uninterrupted_one(generated: Path, tmp_path: Path, shuffle: bool) -> None:
    whole = make_model(epochs=3)
    make_engine(tmp_path / "whole").fit(whole, datamodule=make_data(generated, shuffle=shuffle, seed=5))

    class Stop(Callback):
        def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    engine = make_engine(tmp_path / "parts", Stop())
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        engine.fit(make_model(epochs=3), datamodule=make_data(generated, shuffle=shuffle, seed=5))
    (checkpoint,) = (tmp_path / "parts").rglob("v0/**/model.ckpt")
    resumed = make_model(epochs=3)
    resume = make_engine(tmp_path / "parts")
    resume.fit(resumed, datamodule=make_data(generated, shuffle=shuffle, seed=5), ckpt_path=checkpoint)
    assert resume.trainer.global_step == 3 * 4
    assert same(layers(whole), layers(resumed))

    # what the interrupted run left behind is usable: the layers of its last finished epoch
    (written,) = (tmp_path / "parts").rglob("v0/weights/adapter.safetensors")
    with safe_open(written, "pt") as file:
        assert json.loads(file.metadata()["settings"])["epochs"] == 2
    assert same(layers(ClipAD(**TINY, adapter=str(written))), layers(ClipAD(**TINY, adapter=str(checkpoint))))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_cached_features_give_the_same_layers(generated: Path, tmp_path: Path, kind: str) -> None:
    results, calls = [], []
    for cache in ("none", kind):
        model = make_model(feature_cache=cache)
        tap = model.model.tokens
        count = [0]

        def counted(images: Tensor, stage: int, tap: Any = tap, count: list[int] = count) -> list[Tensor]:
            count[0] += 1
            return tap(images, stage)

        model.model.tokens = counted  # type: ignore[method-assign]
        make_engine(tmp_path / cache).fit(model, datamodule=make_data(generated))
        results.append(layers(model))
        calls.append(count[0])
    assert same(*results)
    assert calls == [8, 4]


@pytest.mark.slow
def test_checkpoints_hold_the_layers_and_move(data: Auxiliary, tmp_path: Path) -> None:
    model = make_model(epochs=1)
    engine = make_engine(tmp_path)
    (before,) = engine.train(model, datamodule=data)
    (checkpoint,) = tmp_path.rglob("v0/**/model.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    assert all(
        name.startswith(("model.detector.adapter.", "model.text_features", "post_processor."))
        for name in content["state_dict"]
    )
    assert content["optimizer_states"] == []  # training is over
    restored = ClipAD.load_from_checkpoint(checkpoint, **TINY)
    assert restored.model.detector.adapter.trained
    assert same(layers(model), layers(restored))
    (after,) = make_engine(tmp_path / "again").test(make_model(), datamodule=data, ckpt_path=checkpoint)
    assert after == before


@pytest.mark.slow
def test_a_checkpoint_of_the_other_variant_is_refused(data: Auxiliary, tmp_path: Path) -> None:
    make_engine(tmp_path).fit(make_model(epochs=1), datamodule=data)
    (checkpoint,) = tmp_path.rglob("v0/**/model.ckpt")
    with pytest.raises(ValueError, match="This model is of variant 'sdp', the checkpoint of 'sdp_plus'"):
        make_engine(tmp_path / "other").test(ClipAD(**TINY), datamodule=data, ckpt_path=checkpoint)


def test_untrained_layers_predict_nothing(data: Auxiliary, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="layers of SDP\\+ are not trained"):
        make_engine(tmp_path).test(make_model(), datamodule=data.target)


def test_training_on_other_data_says_what_is_needed(data: Auxiliary, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"trained on anomalib_clipad.data.Auxiliary.*got GeneratedParts"):
        make_engine(tmp_path).fit(make_model(), datamodule=data.target)


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_and_names_the_batch(
    data: Auxiliary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = layers_of_sdp_plus.adapter_losses, []

    def losses(probabilities: Tensor, mask: Tensor) -> dict[str, Tensor]:
        calls.append(1)
        found = real(probabilities, mask)
        return {**found, "dice_2": found["dice_2"] * torch.nan} if len(calls) == 6 else found

    monkeypatch.setattr(layers_of_sdp_plus, "adapter_losses", losses)
    with pytest.raises(ValueError, match=r"loss is nan on .*washer-"):
        make_engine(tmp_path).fit(make_model(), datamodule=data)
    (written,) = tmp_path.rglob("v0/weights/adapter.safetensors")
    assert all(torch.isfinite(value).all() for value in layers(ClipAD(**TINY, adapter=str(written))).values())


@pytest.mark.parametrize("worse", [True, False])
def test_layers_that_are_worse_than_none_are_said_so(
    data: Auxiliary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worse: bool
) -> None:
    model = make_model(epochs=1)
    numbers = (0.9, 0.5) if worse else (0.5, 0.9)
    monkeypatch.setattr(adapter_training.AdapterTraining, "compare", lambda self: numbers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_engine(tmp_path).fit(model, datamodule=data)
    said = [str(warning.message) for warning in caught if "worse than SDP" in str(warning.message)]
    assert len(said) == worse
    if worse:
        assert "pixel AUROC 0.500 against 0.900 after 4 steps. Train for more steps (epochs=5" in said[0]


@pytest.mark.slow
def test_both_variants_are_compared_on_defective_training_pictures(data: Auxiliary, tmp_path: Path) -> None:
    model, seen = make_model(epochs=2), []
    compare = adapter_training.AdapterTraining.compare

    def look(training: adapter_training.AdapterTraining) -> tuple[float, float]:
        seen.append((compare(training), training._sample, model.model.detector))
        return seen[-1][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter_training.AdapterTraining, "compare", look)
        make_engine(tmp_path).fit(model, datamodule=data)
    (((sdp, plus), sample, detector),) = seen
    assert len(sample) == 14  # all defective pictures, once
    truth = torch.cat([mask.flatten() > 0.5 for _, mask, _ in sample])
    texts = {name: model.model.encode(name) for _, _, name in sample}
    maps = torch.cat([detector(image[None], texts[name]).anomaly_map.flatten() for image, _, name in sample])
    assert plus == pytest.approx(roc_auc_score(truth, maps.detach()), abs=1e-4)
    assert sdp != plus


@pytest.mark.slow
def test_an_epoch_without_a_defect_has_nothing_to_compare(data: Auxiliary) -> None:
    training = adapter_training.AdapterTraining(make_model().model, set_up(data), "none")
    assert all(math.isnan(number) for number in training.compare())


def test_augmented_pictures_are_not_cached(generated: Path, tmp_path: Path) -> None:
    data = make_data(generated, train_augmentations=RandomHorizontalFlip())
    with pytest.raises(ValueError, match="feature_cache has to be 'none' with augmentations"):
        make_engine(tmp_path).fit(make_model(feature_cache="memory"), datamodule=data)


@pytest.mark.parametrize("option", ["variant", "feature_cache"])
def test_unknown_options_are_named(option: str) -> None:
    with pytest.raises(ValueError, match=f"Unknown {option} 'sdpp'"):
        ClipAD(**TINY, **{option: "sdpp"})


@pytest.mark.slow
def test_without_validation_data_scores_are_the_mean_probability(data: Auxiliary, tmp_path: Path) -> None:
    make_engine(tmp_path).fit(make_model(epochs=1), datamodule=data)
    (written,) = tmp_path.rglob("v0/weights/adapter.safetensors")
    model = ClipAD(**TINY, adapter=str(written), class_name="wood", visualizer=False)
    image = next((data.target.folder / "test/good").iterdir())
    (batch,) = make_engine(tmp_path / "one").predict(model, data_path=image)
    raw = model.model(model.pre_processor(batch.image)).anomaly_map
    mean = raw / 4
    near = (mean > 0.1) & (mean < 0.9)
    torch.testing.assert_close(batch.anomaly_map[near], mean[near], atol=0.01, rtol=0)
    assert ((batch.anomaly_map > 0.5) == (raw > 2)).all()
    assert (batch.pred_mask == (raw > 2)).all()
