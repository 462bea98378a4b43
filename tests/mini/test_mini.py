"""The training of clipad-mini: it goes on exactly where it was stopped, and its schedule is what the recipe says."""

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from anomalib_clipad.mini import loop, pool, validation
from anomalib_clipad.mini.__main__ import train_mini
from anomalib_clipad.mini.loop import Trainer
from anomalib_clipad.mini.pool import COARSE, FINE
from anomalib_clipad.mini.recipe import Phase, Recipe, Round
from anomalib_clipad.mini.weights import average

SHORT = Recipe(
    rounds=(
        Round(COARSE, 1, 160, (Phase(96, 4, 2), Phase(160, 2, 2)), 1e-3, (1.0, 1.0), warmup=1),
        Round(FINE, 1, 304, (Phase(96, 2, 1), Phase(304, 2, 1)), 1e-3, (1.0, 1.0), warmup=1),
    ),
    averaged=1,
    prompts=4,
    text_steps=3,
)


class _StopError(Exception):
    pass


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pictures, and one category to validate on."""
    monkeypatch.setattr(loop, "render_shard", partial(pool.render_shard, pairs=12))
    monkeypatch.setattr(loop, "validation_set", partial(validation.validation_set, good=1, defective=1))
    categories = {"washer": validation.TRAINING_CATEGORIES["washer"]}
    monkeypatch.setattr(validation, "TRAINING_CATEGORIES", categories)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_a_resumed_training_ends_like_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_mini(SHORT, tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/pool").symlink_to(tmp_path / "whole/pool")
    update = Trainer._update

    def stop(self: Trainer, *arguments: object) -> dict[str, float]:
        if self.first_step + self.step in stops:
            stops.remove(self.first_step + self.step)
            self._save()
            raise _StopError
        return update(self, *arguments)

    stops = {2, 5}  # once in either round
    monkeypatch.setattr(Trainer, "_update", stop)
    for _ in range(2):
        with pytest.raises(_StopError):
            train_mini(SHORT, tmp_path / "parts")
    train_mini(SHORT, tmp_path / "parts")
    assert not stops

    whole, parts = (load_file(tmp_path / name / "clipad-mini.safetensors") for name in ("whole", "parts"))
    shipped = load_file(Path(loop.__file__).parents[1] / "mini/clipad-mini.safetensors")
    assert {name: value.shape for name, value in whole.items()} == {n: value.shape for n, value in shipped.items()}
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], msg=name)


def test_the_learning_rate_rises_and_falls() -> None:
    phases = (Phase(96, 2, 60), Phase(160, 2, 40))
    part = Round(COARSE, 1, 160, phases, 1.0, (0.5, 0.9), warmup=10)
    rates = [part.learning_rate(step) for step in range(part.steps)]
    assert rates[0] < rates[9] < 1.0
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.01)
    assert [part.phase(step).size for step in (0, 59, 60, 99)] == [96, 96, 160, 160]


def test_plain_defects_come_first() -> None:
    part = Round(COARSE, 1, 160, (Phase(96, 2, 100),), 1.0, (0.5, 0.9))
    assert part.plainest_share(0) == 0.5
    assert part.plainest_share(50) == pytest.approx(0.7)


def test_weights_are_averaged(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 4.0)):
        save_file({"weight": torch.full((2, 3), value, dtype=torch.float16)}, tmp_path / name)
    average([tmp_path / "a", tmp_path / "b"], tmp_path / "mean.safetensors")
    assert load_file(tmp_path / "mean.safetensors")["weight"].tolist() == [[2.5] * 3] * 2


def test_every_round_ends_with_whole_pictures() -> None:
    for part in Recipe().rounds:
        assert part.phases[-1].size == part.side
