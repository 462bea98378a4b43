"""The training of clipad-mini: it goes on exactly where it was stopped, and its schedule is what the recipe says."""

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from anomalib_clipad.training.mini import loop, pool, validation
from anomalib_clipad.training.mini.loop import Recipe, Trainer

SHORT = Recipe(
    shards=1,
    sizes=(96, 160),
    steps_per_size=(2, 2),
    pairs_per_size=(4, 2),
    rounds=((3, 1e-3), (1, 1e-3)),
    warmup=1,
    plainest=(1.0, 1.0),
    prompts=4,
    text_steps=3,
)


class _StopError(Exception):
    pass


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pictures, and one category to validate on."""
    monkeypatch.setattr(loop, "render_shard", partial(pool.render_shard, size=12))
    monkeypatch.setattr(loop, "validation_set", partial(validation.validation_set, good=1, defective=1))
    categories = {"washer": validation.TRAINING_CATEGORIES["washer"]}
    monkeypatch.setattr(validation, "TRAINING_CATEGORIES", categories)


@pytest.mark.usefixtures("small")
def test_a_resumed_training_ends_like_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = tmp_path / "pool"
    Trainer(tmp_path / "whole", SHORT, pictures).run()

    def stop(self: Trainer, *arguments: object) -> dict[str, float]:
        if self.step == 2:
            self._save()
            raise _StopError
        return update(self, *arguments)

    update = Trainer._update
    monkeypatch.setattr(Trainer, "_update", stop)
    with pytest.raises(_StopError):
        Trainer(tmp_path / "parts", SHORT, pictures).run()
    monkeypatch.setattr(Trainer, "_update", update)
    Trainer(tmp_path / "parts", SHORT, pictures).run()

    whole, parts = (load_file(tmp_path / name / "clipad-mini.safetensors") for name in ("whole", "parts"))
    shipped = load_file(Path(loop.__file__).parents[2] / "backbones/clipad-mini.safetensors")
    assert {name: value.shape for name, value in whole.items()} == {n: value.shape for n, value in shipped.items()}
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], msg=name)


def test_the_learning_rate_falls_in_every_round() -> None:
    recipe = Recipe(steps_per_size=(60, 40), rounds=((80, 1.0), (20, 0.5)), warmup=10)
    rates = [recipe.learning_rate(step) for step in range(recipe.steps)]
    assert rates[0] < rates[9] < 1.0
    assert rates[9:80] == sorted(rates[9:80], reverse=True)
    assert rates[80] == 0.5
    assert rates[80:] == sorted(rates[80:], reverse=True)
    assert sum(steps for steps, _ in Recipe().rounds) == Recipe().steps


def test_plain_defects_come_first() -> None:
    recipe = Recipe(steps_per_size=(60, 40), rounds=((80, 1.0), (20, 0.5)), plainest=(0.5, 0.9))
    assert recipe.plainest_share(0) == 0.5
    assert recipe.plainest_share(40) == pytest.approx(0.7)
    assert recipe.plainest_share(80) == recipe.plainest_share(99) == 0.9
