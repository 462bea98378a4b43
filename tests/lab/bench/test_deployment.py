"""`python -m anomalib_clipad.lab deployment`: size, rate and changes stand in the right row, with the right sign."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import shallow

from anomalib_clipad.lab.bench import deployment as module
from anomalib_clipad.lab.bench import timing
from anomalib_clipad.lab.bench.deployment import Deployed, deployment
from anomalib_clipad.metrics import METRICS

SECONDS = {"torch": 2.0, "ONNX": 0.5}
MEGABYTES = {"torch": 8.0, "ONNX": 3.0}


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    """The table, rows by format, of two formats that cost what the constants say."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing, "perf_counter", lambda: clock.now)

    def format_of(name: str) -> Deployed:
        def predict(images: Any) -> dict[str, Any]:
            clock.now += SECONDS[name]
            return {"format": name}

        return Deployed(MEGABYTES[name], predict)

    def metrics_of(predict: Any, data: Any) -> dict[str, float]:
        base = 0.8 if data.category == "gear" else 0.9
        loss = {"gear": 0.02, "wood": 0.06}[data.category] if predict(None)["format"] == "ONNX" else 0.0
        return {name: base - loss * number for number, name in enumerate(METRICS)}

    monkeypatch.setattr(module, "_export_all", lambda *args: {name: format_of(name) for name in SECONDS})
    monkeypatch.setattr(module, "_metrics", metrics_of)
    deployment(batch_size=4, repeats=3)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    return {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}


def test_each_format_has_its_size_and_images_per_second(printed: dict[str, dict[str, str]]) -> None:
    assert [printed[name]["MB"] for name in SECONDS] == ["8.0", "3.0"]
    assert [printed[name]["images/s"] for name in SECONDS] == ["2.0", "8.0"]


def test_a_format_four_times_as_fast_is_four_times_torchs(printed: dict[str, dict[str, str]]) -> None:
    assert [printed[name]["of torch's"] for name in SECONDS] == ["1.00", "4.00"]


def test_changes_are_means_over_the_categories_of_each_metric(printed: dict[str, dict[str, str]]) -> None:
    assert {printed["torch"][name] for name in METRICS} == {"+0.0000"}
    expected = [f"{0 - 0.04 * number:+.4f}" for number in range(len(METRICS))]  # of -0.02 and -0.06 times the number
    assert [printed["ONNX"][name] for name in METRICS] == expected


@pytest.mark.slow
def test_real_exports_are_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    deployment(shallow()["backbone"], batch_size=1, repeats=1, formats=["torch", "ONNX"])
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()]
    assert rows[-2:] == ["torch", "ONNX"]


def test_an_unknown_format_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"\['TensorRT'\].*torch, ONNX, OpenVINO"):
        deployment(formats=["TensorRT"])
