"""The training of clipad-mini: it goes on exactly where it was stopped, and its schedule is what the recipe says."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import max_pool2d

from anomalib_clipad.backbones import load_backbone
from anomalib_clipad.backbones.sources import SHIPPED
from anomalib_clipad.lab.mini import batches, loop, validation
from anomalib_clipad.lab.mini.batches import PATCH, Augmentation
from anomalib_clipad.lab.mini.damage import DAMAGES, KINDS
from anomalib_clipad.lab.mini.graph import Graph
from anomalib_clipad.lab.mini.loop import Trainer
from anomalib_clipad.lab.mini.objective import Window
from anomalib_clipad.lab.mini.parts import BUILDERS
from anomalib_clipad.lab.mini.pool import Pairs, Pool
from anomalib_clipad.lab.mini.recipe import Phase, Recipe
from anomalib_clipad.lab.mini.rendering import render_shard
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
    words=3,
    text_steps=3,
    save_every=100,
)


class _StopError(Exception):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of one shard."""
    path = tmp_path_factory.mktemp("pool")
    render_shard(path, 0, 0, PAIRS)
    return path


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[Pool]:
    pool = Pool(folder, 0, 1, torch.device("cpu"), workers=1, pairs=PAIRS)
    pool.fill(1)
    yield pool
    pool.close()


def _draw(pool: Pool, count: int, share: float = 1.0) -> Pairs:
    return pool.draw(count, torch.tensor(1.0), torch.tensor(share))


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
    shipped = load_file(SHIPPED)
    assert {name: value.shape for name, value in whole.items()} == {n: value.shape for n, value in shipped.items()}
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], msg=name)


def test_a_shard_is_rendered_once_and_by_its_seed_alone(tmp_path: Path, folder: Path) -> None:
    path = render_shard(tmp_path, 0, 0, PAIRS)
    assert np.array_equal(np.load(path / "images.npy"), np.load(folder / path.name / "images.npy"))
    written = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    assert render_shard(tmp_path, 0, 0, PAIRS) == path
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == written


@pytest.mark.slow
def test_the_pool_draws_what_its_processes_render_the_plainest_first(pool: Pool, folder: Path) -> None:
    assert pool.filled == 1
    (path,) = (path for path in folder.iterdir() if path.is_dir())
    images, contrasts = np.load(path / "images.npy"), np.load(path / "contrasts.npy")
    assert np.array_equal(pool.first_images(3), images[:3, 1])
    for share in (0.5, 1.0):
        rows = {int(np.flatnonzero((images == pair).all(axis=(1, 2, 3, 4)))[0]) for pair in _draw(pool, 99, share)[0]}
        assert rows == set((-contrasts).argsort()[: round(share * PAIRS)])


def test_twins_differ_in_the_patches_that_the_mask_says(pool: Pool) -> None:
    torch.manual_seed(3)
    batch = Augmentation(160, 304)(_draw(pool, 16))
    flawless, damaged = batch.images.chunk(2)
    change = max_pool2d((flawless - damaged).abs().amax(dim=1), PATCH).flatten(1)
    grain = 1.2  # the noise of both, in standard deviations of a pixel
    assert (batch.coverage[:16] == 0).all()
    assert (batch.abnormal[:16] == 0).all()
    broad = batch.coverage[16:] > 0.5
    assert change[broad].mean() > 1.5 * change[batch.coverage[16:] == 0].mean()
    assert change[batch.coverage[16:] == 0].median() < grain


def test_pasted_defects_are_marked_where_they_change_the_picture(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PASTED", 1.0)
    monkeypatch.setattr(batches, "_recolour", lambda _, images: images)
    monkeypatch.setattr(batches, "_refocus", lambda _, images: images)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # no grain
    augmentation = Augmentation(96, 304)
    batch = augmentation(_draw(pool, 32))
    flawless, damaged = (batch.images * augmentation.std).chunk(2)
    change = max_pool2d((flawless - damaged).abs().amax(dim=1), PATCH).flatten(1)
    marked = batch.coverage[32:] > 0
    assert 0.02 < marked.float().mean() < 0.5
    assert change[marked].min() > 8 / 255 - 1e-5
    assert change[~marked].max() < 8 / 255 + 1e-5
    assert (batch.kinds == KINDS.index("contamination")).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [96, 304])
def test_a_batch_is_made_by_its_seed_alone(pool: Pool, size: int) -> None:
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(Augmentation(size, 304)(_draw(pool, 4)))
    first, again, other = made
    assert first.images.shape == (8, 3, size, size)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.corner, again.corner)
    assert not torch.equal(first.images, other.images)
    assert 0 <= first.corner.min() <= first.corner.max() <= (304 - size) // PATCH


def test_a_window_sees_what_the_whole_tower_sees_there() -> None:
    visual = load_backbone("clipad-mini").clip.visual
    window = Window(visual, 6)
    window.corner.copy_(torch.tensor([2, 11]))
    whole = visual.positional_embedding[1:].unflatten(0, (19, 19))
    assert torch.equal(window.positional_embedding[1:], whole[2:8, 11:17].flatten(0, 1))
    assert torch.equal(window.positional_embedding[0], visual.positional_embedding[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_does_what_its_function_does() -> None:
    counter = torch.zeros((), device="cuda")
    graph = Graph(lambda: counter.add_(1), torch.device("cuda"))
    for _ in range(10):
        graph()
    assert int(counter) == 10


def test_training_pictures_never_draw_what_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError  # only builtins: the code runs in other modules

    outlines = (shapes.toothed, categories._gear, categories._bracket, categories._connector)
    for function in (*outlines, textures.woven, textures.wood_grain, textures.granular):
        monkeypatch.setattr(function, "__code__", forbidden.__code__)  # whoever imported it, by whatever name
    with pytest.raises(AssertionError):
        make_sample(categories.HELD_OUT_CATEGORIES["gear"], 0, np.random.default_rng(0), None, 64)
    rng = np.random.default_rng(0)
    for i in range(2 * len(BUILDERS)):
        sample = make_sample(BUILDERS[i % len(BUILDERS)], i, rng, DAMAGES[i % len(DAMAGES)].defect, 64)
        assert sample.image.shape == (64, 64, 3)


@pytest.mark.slow
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


def test_plain_defects_and_few_pictures_come_first() -> None:
    recipe = Recipe(phases=(Phase(96, 2, 100),), plainest=(0.5, 0.9), shards=(10, 100))
    assert recipe.plainest_share(0) == 0.5
    assert recipe.plainest_share(100) == pytest.approx(0.9)
    assert [recipe.shards_in_use(step) for step in (0, 40, 80, 99)] == [10, 55, 100, 100]


def test_progress_counts_pixels() -> None:
    recipe = Recipe(phases=(Phase(100, 3, 10), Phase(200, 1, 30)))  # 300,000 and 1,200,000 pixels
    assert [recipe.progress(step) for step in (0, 10, 25, 40)] == pytest.approx([0, 0.2, 0.6, 1])


def test_the_recipe_ends_with_whole_pictures_of_the_models_size() -> None:
    assert Recipe().side == loop.load_backbone("clipad-mini").image_size
