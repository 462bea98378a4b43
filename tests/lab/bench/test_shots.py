"""`python -m anomalib_clipad.lab references`: each way has its row, each category its column."""

from pathlib import Path
from typing import Any

import pytest

from anomalib_clipad.lab.bench import shots
from anomalib_clipad.lab.evaluation import evaluate, quiet_engine
from anomalib_clipad.metrics import METRICS, Metrics


def value(model: Any, data: Any) -> Metrics:
    """What a test can tell apart: by number of references, share of the text, and category."""
    few, settings = model.references, model.model.settings
    share = {"sum": 0.5, "spread": 0.25}[settings.joining] if settings.uses_text else 0
    number = (few.k_shot or 0) / 100 + share / 10 + (0.05 if data.category == "wood" else 0)
    return {name: number + (0.5 if name == "pixel_PRO" else 0) for name in METRICS}


def rows(printed: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line]


def test_means_and_categories_of_each_way_are_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shots, "evaluate", value)
    shots.main(categories=("gear", "wood"))
    found = rows(capsys.readouterr().out)
    ways = shots.ways_of((1, 4))
    means, cells = found[2 : 2 + len(ways)], found[4 + len(ways) :]
    assert [row[0] for row in means] == [row[0] for row in cells] == list(ways)
    by_name = {row[0]: row[1:] for row in means}
    assert (by_name["text alone"][0], by_name["text alone"][6]) == ("0.050", "0.550")
    assert by_name["k_shot 4, images alone"][0] == "0.065"
    assert by_name["k_shot 4, by spread"][0] == "0.090"
    assert "k_shot 1, by spread" not in by_name, "one image tells no spread"
    assert dict(zip(found[2 + len(ways)], cells[2], strict=True)) == {
        "image_AUROC / pixel_PRO": "k_shot 4, plain sum",
        "gear": "0.090 / 0.590",
        "wood": "0.140 / 0.640",
    }


def test_memories_keep_what_they_are_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kept(model: Any, data: Any) -> Metrics:
        return dict.fromkeys(METRICS, (model.references.memory_size or 999) / 1000)

    monkeypatch.setattr(shots, "evaluate", kept)
    shots.main(memory=(30, 90), categories=("gear",))
    assert rows(capsys.readouterr().out)[2:] == [
        ["all", "0.999 / 0.999 / 0.999"],
        ["`memory_size` 30", "0.030 / 0.030 / 0.030"],
        ["`memory_size` 90", "0.090 / 0.090 / 0.090"],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"mutual": True, "text_weight": 0.0}])
def test_one_pass_gives_the_metrics_of_anomalibs_test(tmp_path: Path, options: dict[str, Any]) -> None:
    from anomalib_clipad import ClipAD
    from anomalib_clipad.data import GeneratedParts

    numbers = {"image_size": 96, "train_images": 1, "good_images": 8, "defective_images": 7}
    data = GeneratedParts(tmp_path, "gear", eval_batch_size=4, **numbers)
    model, other = (ClipAD(backbone="clipad-mini", visualizer=False, **options) for _ in range(2))
    with quiet_engine() as engine:
        (expected,) = engine.test(model=model, datamodule=data, verbose=False)
    assert evaluate(other, data) == pytest.approx({name: float(number) for name, number in expected.items()})
