"""Training AF-CLIP and AA-CLIP through anomalib: what changes, what the text is afterwards, a run that goes on."""

import copy
import gc
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, make_engine
from lightning.pytorch import Callback, Trainer
from neighbours import tiny
from sklearn.metrics import roc_auc_score

from anomalib_clipad import ClipAD
from anomalib_clipad.adaptors.aa_clip import AAClip
from anomalib_clipad.adaptors.losses import total
from anomalib_clipad.adaptors.stages import Stage, stage_at
from anomalib_clipad.data import Auxiliary, GeneratedParts
from anomalib_clipad.training.adapter_training import AdapterTraining

FEW = {"good_images": 3, "defective_images": 7, "train_images": 1, "image_size": 64}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generated")


def make_data(root: Path) -> Auxiliary:
    source, target = GeneratedParts(root, "washer", **FEW), GeneratedParts(root, "wood", **FEW)
    return Auxiliary(source, target, ["washer", "leather"])


def make_model(epochs: int = 2, **options: Any) -> ClipAD:
    torch.manual_seed(0)
    given = {"variant": "af_clip", "epochs": epochs, "learning_rate": 1e-3, "visualizer": False}
    return ClipAD(**{**TINY, **given, **options})


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


class Stop(Callback):
    """Interrupts a run when an epoch begins."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


class Sizes(Callback):
    """Keeps the number of pictures of each batch."""

    def __init__(self) -> None:
        self.sizes: list[list[int]] = []

    def on_train_epoch_start(self, *args: Any) -> None:
        self.sizes.append([])

    def on_train_batch_start(self, trainer: Trainer, module: ClipAD, batch: Any, *args: Any) -> None:
        self.sizes[-1].append(batch.batch_size)


def course(folder: Path, variant: str, **options: Any) -> ClipAD:
    """A model of a tower that both can be trained with; AA-CLIP changes its stage after the second of five epochs."""
    clip = tiny(folder, quick_gelu=False, size=64).settings()
    return make_model(**{"epochs": 5, "variant": variant, "learning_rate": 5e-3, **clip, **options})


def same(one: ClipAD, other: ClipAD) -> bool:
    own = other.model.adapter.state_dict()
    return all(torch.equal(value, own[name]) for name, value in one.model.adapter.state_dict().items())


@pytest.fixture(scope="module")
def whole(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An uninterrupted training without kept features, of each variant, once."""
    done: dict[str, ClipAD] = {}

    def train(variant: str) -> ClipAD:
        if variant not in done:
            folder = tmp_path_factory.mktemp(variant)
            done[variant] = course(folder, variant)
            make_engine(folder).fit(done[variant], datamodule=make_data(generated))
        return done[variant]

    return train


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """AA-CLIP's stages take two and three of five epochs, and its rate is halved after a few steps."""
    text, image = AAClip.course
    stages = (text._replace(epochs=2, batch_size=5), image._replace(epochs=3, batch_size=8, milestones=(2, 5)))
    monkeypatch.setattr(AAClip, "course", stages)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "epoch"),
    [("af_clip", 3), ("aa_clip", 1), ("aa_clip", 2), ("aa_clip", 4)],
    ids=["af_clip", "stage 1", "between the stages", "stage 2"],
)
def test_a_run_that_goes_on_ends_like_one_that_was_never_stopped(
    generated: Path, tmp_path: Path, whole: Any, variant: str, epoch: int
) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        make_engine(tmp_path, Stop(epoch)).fit(course(tmp_path, variant), datamodule=make_data(generated))
    (checkpoint,) = tmp_path.rglob("v0/**/model.ckpt")
    resumed = course(tmp_path, variant)
    make_engine(tmp_path).fit(resumed, datamodule=make_data(generated), ckpt_path=checkpoint)
    assert same(whole(variant), resumed)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["af_clip", "aa_clip"])
def test_features_that_are_kept_give_the_same_layers(generated: Path, tmp_path: Path, whole: Any, variant: str) -> None:
    kept, reads = course(tmp_path, variant, feature_cache="memory"), []
    read = kept.model.tokens
    kept.model.tokens = lambda images, stage: reads.append(stage) or read(images, stage)
    make_engine(tmp_path).fit(kept, datamodule=make_data(generated))
    assert same(whole(variant), kept)
    batches = {"af_clip": {0: 3}, "aa_clip": {0: 4, 1: 3 * 3}}[variant]  # an epoch, but for what changes
    assert {stage: reads.count(stage) for stage in reads} == batches


@pytest.mark.slow
def test_each_stage_has_its_batches_and_its_count_of_steps(generated: Path, tmp_path: Path) -> None:
    model, sizes, rates = course(tmp_path, "aa_clip"), Sizes(), []

    class Rates(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, module: ClipAD, optimizer: Any) -> None:
            rates.append([group["lr"] for group in optimizer.param_groups])

    make_engine(tmp_path, sizes, Rates()).fit(model, datamodule=make_data(generated))
    assert sizes.sizes == 2 * [[5, 5, 5, 5]] + 3 * [[8, 8, 4]]
    text, image = zip(*rates, strict=True)
    assert set(text) == {5e-3 / 50}
    assert image == (*[5e-3] * (8 + 2), *[5e-3 / 2] * 3, *[5e-3 / 4] * 4)


def test_as_coded_is_how_the_authors_programs_learn(generated: Path, tmp_path: Path) -> None:
    data = make_data(generated)
    data.setup()
    gradients, names = {}, {}
    for variant in ("af_clip", "aa_clip"):
        for as_coded in (False, True):
            model = course(tmp_path, variant, as_coded=as_coded)
            training = AdapterTraining(model.model, data, "memory")
            batch = next(iter(data.train_dataloader()))
            batch.image, batch.gt_mask = model.pre_processor.transform(batch.image, batch.gt_mask)
            losses = training.losses(batch)
            total(losses).backward()
            weights = [value for value in model.model.adapter.parameters() if value.grad is not None]
            gradients[variant, as_coded] = torch.cat([value.grad.flatten() for value in weights])
            names[variant, as_coded] = set(losses)
            # what depends on the batch is not kept: another one of the same picture is read anew
            assert model.model.adapter.keeps(0) == (variant == "af_clip" or not as_coded)
    for variant in ("af_clip", "aa_clip"):
        assert not torch.allclose(gradients[variant, False], gradients[variant, True], rtol=1e-3)
    assert names["af_clip", True] == names["af_clip", False]
    assert names["aa_clip", True] == {"level_4", "orthogonality"}


def test_data_do_not_hold_the_features_of_a_training_that_is_over(generated: Path) -> None:
    data = make_data(generated)
    data.setup()
    training = weakref.ref(AdapterTraining(make_model().model, data, "memory"))
    gc.collect()
    assert training() is None
    assert data.batch_size_at(0) == 8


def test_a_stage_for_each_epoch_is_needed(generated: Path) -> None:
    data = make_data(generated)
    data.setup()
    with pytest.raises(ValueError, match="AA-CLIP is trained in 2 stages and needs an epoch for each; got epochs=1"):
        AdapterTraining(make_model(variant="aa_clip").model, data, "none", epochs=1)


@pytest.mark.parametrize(
    ("epochs", "first"), [(2, 1), (3, 1), (5, 1), (10, 2), (25, 5)], ids=lambda number: str(number)
)
def test_stages_share_the_epochs_as_their_authors_do(epochs: int, first: int) -> None:
    stages = (Stage(5, 16, 1e-5), Stage(20, 2, 5e-4))
    assert [stage_at(stages, epoch, epochs) for epoch in range(epochs)] == [0] * first + [1] * (epochs - first)


@pytest.mark.parametrize("variant", ["af_clip", "aa_clip"])
@pytest.mark.parametrize("worse", [True, False])
def test_layers_that_are_worse_than_none_are_said_so(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, worse: bool
) -> None:
    found = []
    compare = AdapterTraining.compare

    def look(training: AdapterTraining) -> tuple[float, float]:
        without, own = compare(training)
        assert without != own
        found.append((without, own))
        return (1.0, own) if worse else (0.0, own)

    monkeypatch.setattr(AdapterTraining, "compare", look)
    model = course(tmp_path, variant, epochs=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_engine(tmp_path).fit(model, datamodule=make_data(generated))
    said = [str(warning.message) for warning in caught if "worse than SDP" in str(warning.message)]
    assert len(said) == worse
    if worse:
        assert f"{model.model.title} is worse than SDP on its own training pictures" in said[0]
        assert f"{found[0][1]:.3f} against 1.000" in said[0]
        assert "Train for more steps (epochs=10" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["af_clip", "aa_clip"])
def test_they_are_compared_with_what_a_user_has_without_them(generated: Path, tmp_path: Path, variant: str) -> None:
    data, model = make_data(generated), course(tmp_path, variant)
    data.setup()
    training = AdapterTraining(model.model, data, "none")
    for batch in data.train_dataloader():
        batch.image, batch.gt_mask = model.pre_processor.transform(batch.image, batch.gt_mask)
        training.sample(batch)
    without, own = training.compare()
    masks = torch.cat([mask.flatten() > 0.5 for _, mask, _ in training._sample])
    alone = course(tmp_path, "sdp").model
    for one, expected in ((alone, without), (model.model, own)):
        maps = []
        for image, _, name in training._sample:
            one.setup(name)
            maps.append(one(image[None]).anomaly_map.flatten())
        assert roc_auc_score(masks, torch.cat(maps)) == pytest.approx(expected, abs=1e-4)


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
        for old, new in ((states[0], states[2]), (states[2], states[-1]))
    )
    text = {name for name in states[0] if name.startswith("text_")}
    assert first == text
    assert then == set(states[0]) - text - {"trained", "relu"}
    assert torch.equal(model.model.text_features, model.model.encode("wood"))
    (optimizer,) = (found["optimizer"] for found in [model.configure_optimizers()])
    assert [group["lr"] for group in optimizer.param_groups] == [5e-3 / 50, 5e-3]


def test_the_authors_way_of_training_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
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
