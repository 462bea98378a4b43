"""`python -m anomalib_clipad.lab adaptors`: means over seeds, layers of their training, nothing done twice."""

from pathlib import Path
from typing import Any

import pytest

from anomalib_clipad.lab.bench import adaptors
from anomalib_clipad.metrics import METRICS, Metrics
from anomalib_clipad.parts.categories import HELD_OUT_CATEGORIES

SEEDS = (3, 5)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Trainings that are over at once; what they are of."""
    done: list[tuple[str, int]] = []

    def train(layers: Path, way: adaptors.Way, seed: int) -> None:
        done.append((way.title, seed))
        layers.parent.mkdir(exist_ok=True)
        layers.write_text(str(seed))

    def compared(ways: dict[str, Any], data: Any) -> dict[str, Metrics]:
        ((name, options),) = ways.items()
        seed = int(Path(options["adapter"]).read_text()) if "adapter" in options else 0
        assert options.get("tap") == ("block" if name.endswith("block") else None)
        return {name: dict.fromkeys(METRICS, seed / 10 + (0.06 if data.category == "wood" else 0))}

    monkeypatch.setattr(adaptors, "train", train)
    monkeypatch.setattr(adaptors, "compared", compared)
    monkeypatch.setattr(adaptors, "_speeds", lambda repeats: [["SDP", 1.0, 2.0, 3.0]])
    return done


def rows(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line]


def test_each_variant_is_trained_once_for_each_seed(
    trained: list[tuple[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adaptors.main(SEEDS, tmp_path)
    titles = [way.title for way in adaptors.WAYS.values()]
    assert trained == [(way.title, seed) for seed in SEEDS for way in adaptors.WAYS.values() if way.epochs]
    first = capsys.readouterr().out
    found = rows(first)
    means = {row[0]: row[1:] for row in found[2:8]}
    assert list(means) == titles
    assert means["SDP"] == ["0.010"] * 7
    assert means["AF-CLIP"] == ["0.410 ± 0.141"] * 7
    assert dict(zip(found[11], found[17], strict=True))["wood"] == "0.460 / 0.460"
    adaptors.main(SEEDS, tmp_path)
    assert capsys.readouterr().out == first
    assert len(trained) == 8


def test_a_training_that_is_over_is_not_repeated(trained: list[tuple[str, int]], tmp_path: Path) -> None:
    adaptors.outcome(tmp_path, "aa_clip", 4)
    (kept,) = tmp_path.glob("*.json")
    kept.unlink()
    assert set(adaptors.outcome(tmp_path, "aa_clip", 4)) == set(HELD_OUT_CATEGORIES)
    assert trained == [("AA-CLIP", 4)]


@pytest.mark.slow
def test_layers_are_trained_as_the_way_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptors, "TRAINING_CATEGORIES", ["washer"])
    monkeypatch.setattr(adaptors, "_PICTURES", {"good_images": 1, "defective_images": 7, "train_images": 1})
    layers = tmp_path / "layers.safetensors"
    adaptors.train(layers, adaptors.WAYS["aa_clip"]._replace(epochs=2), 0)
    model = adaptors.ClipAD("gear", adapter=layers, **adaptors._MINI)
    assert model.model.title == "AA-CLIP"
    ((title, _, anew, kept), (second, *_)) = list(adaptors._speeds(1))[-2:]
    assert (title, second) == ("AA-CLIP, stage 1", "AA-CLIP, stage 2")
    assert kept > anew > 0
