"""The training of clipad-mini: it goes on exactly where it was stopped, and its schedule is what the recipe says."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from anomalib_clipad.mini import loop, validation
from anomalib_clipad.mini.batches import PATCH, make_batch
from anomalib_clipad.mini.damage import DAMAGES, KINDS
from anomalib_clipad.mini.loop import Trainer
from anomalib_clipad.mini.parts import BUILDERS
from anomalib_clipad.mini.pool import Pool, Shard
from anomalib_clipad.mini.recipe import Phase, Recipe
from anomalib_clipad.mini.rendering import FIELDS, render_shard
from anomalib_clipad.parts import categories, shapes, textures
from anomalib_clipad.parts.samples import make_sample

PAIRS = 8
SHORT = Recipe(
    phases=(Phase(96, 2, 2), Phase(304, 1, 2)),
    lr=1e-3,
    warmup=1,
    shards=(1, 2),
    plainest=(1.0, 1.0),
    prompts=4,
    text_steps=3,
    save_every=100,
)


class _StopError(Exception):
    pass


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Shard:
    path = render_shard(tmp_path_factory.mktemp("pool"), 0, 0, PAIRS)
    return Shard(*(torch.from_numpy(np.load(path / f"{name}.npy")) for name in FIELDS))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One category to validate on."""
    monkeypatch.setattr(loop, "validation_set", partial(validation.validation_set, good=1, defective=1))
    monkeypatch.setattr(validation, "TRAINING_CATEGORIES", {"washer": validation.TRAINING_CATEGORIES["washer"]})


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_resumed_training_ends_like_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = partial(Trainer, recipe=SHORT, device=torch.device("cpu"), pairs=PAIRS)
    train(tmp_path / "whole").run()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/pool").symlink_to(tmp_path / "whole/pool")
    update = Trainer._update

    def stop(self: Trainer) -> object:
        if self.step in stops:
            stops.remove(self.step)
            self._save()
            self.pool.close()
            raise _StopError
        return update(self)

    stops = {1, 3}  # once in either phase
    monkeypatch.setattr(Trainer, "_update", stop)
    for _ in range(2):
        with pytest.raises(_StopError):
            train(tmp_path / "parts").run()
    train(tmp_path / "parts").run()
    assert not stops

    whole, parts = (load_file(tmp_path / name / "clipad-mini.safetensors") for name in ("whole", "parts"))
    shipped = load_file(Path(loop.__file__).with_name("clipad-mini.safetensors"))
    assert {name: value.shape for name, value in whole.items()} == {n: value.shape for n, value in shipped.items()}
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], msg=name)


def test_a_shard_is_rendered_once_and_by_its_seed_alone(tmp_path: Path, shard: Shard) -> None:
    path = render_shard(tmp_path, 0, 0, PAIRS)
    assert np.array_equal(np.load(path / "images.npy"), shard.images)
    written = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    assert render_shard(tmp_path, 0, 0, PAIRS) == path
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == written


def test_the_pool_reads_what_its_processes_render(tmp_path: Path, shard: Shard) -> None:
    pool = Pool(tmp_path, 0, 1, torch.device("cpu"), workers=1, pairs=PAIRS)
    read = pool.shard(0)
    pool.close()
    for name in FIELDS:
        assert torch.equal(getattr(read, name), getattr(shard, name)), name


def test_twins_differ_in_the_patches_that_the_mask_says(shard: Shard) -> None:
    batch = make_batch(3, shard, np.arange(PAIRS), 160, 304)
    flawless, damaged = batch.images.chunk(2)
    change = torch.nn.functional.max_pool2d((flawless - damaged).abs().amax(dim=1), PATCH).flatten(1)
    grain = 1.2  # the noise of both, in standard deviations of a pixel
    assert (batch.coverage[:PAIRS] == 0).all()
    assert (batch.abnormal[:PAIRS] == 0).all()
    broad = batch.coverage[PAIRS:] > 0.5
    assert change[broad].mean() > 1.5 * change[batch.coverage[PAIRS:] == 0].mean()
    assert change[batch.coverage[PAIRS:] == 0].median() < grain


@pytest.mark.parametrize("size", [96, 304])
def test_a_batch_is_made_by_its_seed_alone(shard: Shard, size: int) -> None:
    first, again, other = (make_batch(seed, shard, np.arange(4), size, 304) for seed in (1, 1, 2))
    assert first.images.shape == (8, 3, size, size)
    assert torch.equal(first.images, again.images)
    assert first.corner == again.corner
    assert not torch.equal(first.images, other.images)
    assert max(first.corner) <= (304 - size) // PATCH


def test_training_pictures_never_draw_what_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a held-out outline or material was drawn")

    outlines = (shapes.toothed, categories._gear, categories._bracket, categories._connector)
    for function in (*outlines, textures.woven, textures.wood_grain, textures.granular):
        monkeypatch.setattr(function, "__code__", forbidden.__code__)  # whoever imported it, by whatever name
    with pytest.raises(AssertionError, match="held-out"):
        make_sample(categories.HELD_OUT_CATEGORIES["gear"], 0, np.random.default_rng(0), None, 64)
    rng = np.random.default_rng(0)
    for i in range(2 * len(BUILDERS)):
        sample = make_sample(BUILDERS[i % len(BUILDERS)], i, rng, DAMAGES[i % len(DAMAGES)].defect, 64)
        assert sample.image.shape == (64, 64, 3)


def test_every_kind_of_defect_changes_the_picture() -> None:
    rng = np.random.default_rng(1)
    for damage in DAMAGES:
        assert any(make_sample(BUILDERS[0], i, rng, damage.defect, 240).mask.any() for i in range(3)), damage
        assert 0 <= damage.kind < len(KINDS)


def test_the_learning_rate_rises_and_falls() -> None:
    recipe = Recipe(phases=(Phase(96, 2, 60), Phase(160, 2, 40)), lr=1.0, warmup=10)
    rates = [recipe.learning_rate(step) for step in range(recipe.steps)]
    assert rates[0] < rates[9] <= 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001
    assert [recipe.phase(step).size for step in (0, 59, 60, 99)] == [96, 96, 160, 160]


def test_plain_defects_and_few_pictures_come_first(shard: Shard) -> None:
    recipe = Recipe(phases=(Phase(96, 2, 99),), plainest=(0.5, 0.9), shards=(10, 100))
    assert recipe.plainest_share(0) == 0.5
    assert recipe.plainest_share(99) == pytest.approx(0.9)
    assert [recipe.shards_in_use(step) for step in (0, 66, 98)] == [10, 100, 100]
    plain = shard.plainest(0.5)
    assert len(plain) == PAIRS // 2
    assert shard.contrasts[plain].min() >= np.delete(shard.contrasts.numpy(), plain).max()


def test_the_recipe_ends_with_whole_pictures_of_the_models_size() -> None:
    assert Recipe().side == loop.load_backbone("clipad-mini").image_size
