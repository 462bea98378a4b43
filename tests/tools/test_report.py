"""Benchmark CSVs to one table: sides, means, and what is said of a bad file."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from anomalib_clipad.metrics import METRICS
from anomalib_clipad.tools.report import (
    collect_runs,
    format_settings,
    format_table,
    report,
    tabulate,
)


def write(path: Path, model: str, categories: list[str], base: float = 0.5, **settings: object) -> Path:
    """A results.csv as anomalib writes it, with metrics that rise from category to category."""
    rows = [
        {
            "accelerator": "cpu",
            "job_duration": 3.5 + i,
            "seed": 0,
            "model.class_path": model,
            **{f"model.init_args.{name}": value for name, value in settings.items()},
            "data.class_path": "MVTecAD",
            "data.init_args.category": category,
            **dict.fromkeys(METRICS, base + i / 100),
        }
        for i, category in enumerate(categories)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_a_row_per_category_and_the_mean(tmp_path: Path) -> None:
    table = tabulate(collect_runs([write(tmp_path / "a.csv", "ClipAD", ["bottle", "screw"])]))
    assert list(table.index) == [("bottle", "ClipAD"), ("screw", "ClipAD"), ("mean", "ClipAD")]
    assert table.loc[("mean", "ClipAD"), "pixel_PRO"] == pytest.approx(0.505)


def test_runs_lie_side_by_side_under_names_that_tell_them_apart(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "sdp.csv", "ClipAD", ["bottle", "screw"], rvs="dbscan", tap="block"),
        write(tmp_path / "mean.csv", "ClipAD", ["bottle"], rvs="mean", tap="block"),
        write(tmp_path / "winclip.csv", "WinClipBaseline", ["bottle", "screw"]),
    ]
    table = tabulate(collect_runs(paths))
    names = ["ClipAD rvs=dbscan", "ClipAD rvs=mean", "WinClipBaseline"]
    assert [run for category, run in table.index if category == "bottle"] == names
    assert [run for category, run in table.index if category == "screw"] == [names[0], names[2]]


def test_sdp_and_sdp_plus_are_called_so(tmp_path: Path) -> None:
    adapters = (None, "visa", "layers/adapter.safetensors")
    paths = [write(tmp_path / f"{n}.csv", "ClipAD", ["screw"], adapter=adapter) for n, adapter in enumerate(adapters)]
    assert [run.name for run in collect_runs(paths)] == ["ClipAD SDP", "ClipAD SDP+ visa", "ClipAD SDP+"]


def test_one_file_may_hold_several_runs(tmp_path: Path) -> None:
    both = [pd.read_csv(write(tmp_path / "x.csv", "ClipAD", ["bottle"], rvs=rvs)) for rvs in ("mean", "pca")]
    pd.concat(both).to_csv(tmp_path / "x.csv", index=False)
    assert [run.name for run in collect_runs([tmp_path / "x.csv"])] == ["ClipAD rvs=mean", "ClipAD rvs=pca"]


def test_undefined_metrics_are_dashes_and_not_part_of_the_mean(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "ClipAD", ["skin", "colon"])
    rows = pd.read_csv(path)
    rows.loc[0, "image_AUROC"] = float("nan")
    rows.to_csv(path, index=False)
    table = tabulate(collect_runs([path]))
    assert table.loc[("mean", "ClipAD"), "image_AUROC"] == pytest.approx(0.51)
    first = format_table(table).splitlines()[2]
    assert [cell.strip() for cell in first.split("|")][1:5] == ["skin", "ClipAD", "-", "0.500"]


def test_settings_are_those_all_rows_share(tmp_path: Path) -> None:
    text = format_settings(collect_runs([write(tmp_path / "a.csv", "ClipAD", ["bottle", "screw"], smoothing=8.0)]))
    assert "model.init_args.smoothing = `8.0`" in text
    assert "category" not in text
    assert "duration" not in text


@pytest.mark.slow
def test_the_command_writes_three_files(tmp_path: Path) -> None:
    path = write(tmp_path / "results.csv", "ClipAD", ["bottle", "screw"])
    command = [str(Path(sys.executable).with_name("anomalib-clipad")), "report", str(path), "--output", "out"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "| mean     | ClipAD |       0.505 |" in result.stdout
    assert (tmp_path / "out/report.md").read_text().splitlines()[0] in result.stdout
    assert len(pd.read_csv(tmp_path / "out/report.csv")) == 2 + 1
    assert (tmp_path / "out/report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("", "is no CSV table"),
        ("a,b\n1,2\n", "is not the result of a benchmark: its columns are a, b"),
        ("data.class_path,image_AUROC\n", "has columns but no rows"),
        ("data.class_path,image_AUROC\nX,0.5\nY,high\n", "line 3: 'high' is no number for image_AUROC"),
        ("data.class_path,image_AUROC\nX,0.5\nX,0.6\n", "several rows for 'X'"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "results.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises((OSError, ValueError), match=message):
        report([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
