"""`anomalib-clipad bench`: every measurement yields values beside its peer's, and costs are written as they grow."""

from pathlib import Path

import pytest
from conftest import TINY
from PIL import Image

from anomalib_clipad.tools.bench.bench import bench
from anomalib_clipad.tools.bench.growth import Setting, growth
from anomalib_clipad.tools.bench.measurements import MEASUREMENTS

BACKBONE = TINY["backbone"]


@pytest.mark.parametrize("name", ["forward", "precision", "text", "training"])
def test_a_measurement_yields_positive_numbers(name: str) -> None:
    rows = list(MEASUREMENTS[name](BACKBONE, 2, 1))
    assert rows
    assert all(value > 0 and peers_value > 0 for _, value, _, peers_value in rows)


def test_the_steps_of_predict_are_all_there() -> None:
    throughput, *steps = MEASUREMENTS["engine"](BACKBONE, 16, 1)
    assert throughput[1] > 0
    assert len(steps) == 6
    assert all(seconds > 0 for _, seconds, _, _ in steps)
    assert sum(seconds for _, seconds, _, _ in steps) == pytest.approx(steps[0][3])


def test_the_command_prints_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    bench(BACKBONE, batch_size=1, repeats=1, only=["forward"])
    printed = capsys.readouterr().out
    assert "ratio" in printed
    assert "encode_image" in printed


def test_an_unknown_measurement_lists_the_known() -> None:
    with pytest.raises(SystemExit, match=r"\['speed'\].*forward.*imports"):
        bench(only=["speed"])


def test_growth_is_a_table_and_a_plot(tmp_path: Path) -> None:
    table = growth(tmp_path, 1, {"image_size": (Setting(BACKBONE, 96, 2),)})
    assert (tmp_path / "growth.md").read_text() == table + "\n"
    size, *costs = map(float, table.splitlines()[-1].strip("| ").split("|"))
    assert size == 96
    assert len(costs) == 6
    assert min(costs[:2] + costs[3:5]) >= 0
    with Image.open(tmp_path / "growth.png") as picture:
        assert picture.format == "PNG"
