"""Benchmark CSVs to one table: sides, means, the paper's cells, and what is said of a bad file."""

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


MVTEC = [f"category{number}" for number in range(15)]


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


@pytest.mark.parametrize(("adapter", "f1", "pro"), [(None, 0.359, 0.753), ("visa", 0.400, 0.851)])
def test_all_of_mvtec_ad_stands_beside_the_papers_cells(
    tmp_path: Path, adapter: str | None, f1: float, pro: float
) -> None:
    settings = {"adapter": adapter} if adapter else {}
    runs = collect_runs([write(tmp_path / "a.csv", "ClipAD", MVTEC, **settings)])
    table = tabulate(runs)
    paper, difference = table.xs("paper").iloc[0], table.xs("difference").iloc[0]
    assert paper.dropna().to_dict() == {"pixel_F1Max": f1, "pixel_PRO": pro}
    assert difference.dropna().to_dict() == pytest.approx({"pixel_F1Max": 0.57 - f1, "pixel_PRO": 0.57 - pro})
    assert f"{0.57 - f1:+.3f}" in format_table(table)


@pytest.mark.parametrize(("model", "categories"), [("ClipAD", MVTEC[:14]), ("WinClipBaseline", MVTEC)])
def test_nothing_else_is_compared_with_the_paper(tmp_path: Path, model: str, categories: list[str]) -> None:
    assert not collect_runs([write(tmp_path / "a.csv", model, categories)])[0].paper


PAPERS_OWN = {
    "backbone": "ViT-B-16-plus-240",
    "pretrained": "laion400m_e31",
    "image_size": 240,
    "rvs": "dbscan",
    "rvs_options.eps": 0.5,
    "rvs_options.min_samples": 15,
    "prompts": "industrial",
    "smoothing": 8.0,
    "tap": "reference",
    "precision": "float32",
}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        PAPERS_OWN,
        {"rvs_options": "{'eps': 0.5, 'min_samples': 15}"},
        {"visualizer": False, "text_cache": False, "feature_cache": "memory", "variant": "sdp"},
        {"image_size": None, "adapter": None, "class_name": None},
    ],
)
def test_the_papers_settings_may_be_given_or_left_out(tmp_path: Path, settings: dict[str, object]) -> None:
    sdp, sdp_plus = collect_runs(
        [
            write(tmp_path / "sdp.csv", "ClipAD", MVTEC, **settings),
            write(tmp_path / "plus.csv", "anomalib_clipad.ClipAD", MVTEC, **{**settings, "adapter": "visa"}),
        ]
    )
    assert (sdp.paper["pixel_PRO"], sdp_plus.paper["pixel_PRO"]) == (0.753, 0.851)


@pytest.mark.parametrize("adapter", [None, "visa"])
@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": "clipad-mini"},
        {"backbone": "ViT-L-14-336"},
        {"pretrained": None},
        {"pretrained": "laion400m_e32"},
        {"pretrained": "weights/mine.safetensors"},
        {"image_size": 480},
        {"rvs": "mean"},
        {"rvs": "mean_shift"},
        {"rvs_options.eps": 1.5},
        {"rvs_options.min_samples": 25},
        {"rvs_options": "{'eps': 1.5}"},
        {"prompts": "medical"},
        {"prompts": "mine.yaml"},
        {"prompts.normal": "['good {}']"},
        {"smoothing": 2.0},
        {"smoothing": 0},
        {"tap": "block"},
        {"precision": "bfloat16"},
        {"class_name": "object"},
        {"evaluator": False},
        {"pre_processor.class_path": "anomalib.pre_processing.PreProcessor"},
        {"post_processor.class_path": "ClipADPostProcessor"},
        {"a_setting_of_tomorrow": 1},
    ],
    ids=str,
)
def test_one_other_setting_and_the_paper_is_no_target(
    tmp_path: Path, settings: dict[str, object], adapter: str | None
) -> None:
    path = write(tmp_path / "a.csv", "ClipAD", MVTEC, **{**PAPERS_OWN, **settings, "adapter": adapter})
    (run,) = collect_runs([path])
    assert run.paper == {}


@pytest.mark.parametrize("settings", [{"adapter": "mvtec"}, {"adapter": "mine.safetensors"}, {"variant": "sdp_plus"}])
def test_only_the_layers_trained_on_visa_are_the_papers(tmp_path: Path, settings: dict[str, object]) -> None:
    assert not collect_runs([write(tmp_path / "a.csv", "ClipAD", MVTEC, **settings)])[0].paper


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("data.class_path", ["VisA"] * 15),
        ("data.init_args.val_split_mode", ["from_test"] * 15),
        ("data.init_args.val_split_mode", [*["same_as_test"] * 14, "none"]),
        ("data.init_args.augmentations.class_path", ["CenterCrop"] * 15),
    ],
)
def test_other_data_or_another_protocol_is_not_the_papers(tmp_path: Path, column: str, values: list[str]) -> None:
    path = write(tmp_path / "a.csv", "ClipAD", MVTEC)
    pd.read_csv(path).assign(**{column: values}).to_csv(path, index=False)
    assert not collect_runs([path])[0].paper


def test_a_run_with_the_papers_settings_stands_beside_one_without(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{smoothing}.csv", "ClipAD", MVTEC, smoothing=smoothing) for smoothing in (8.0, 2.0)]
    table = tabulate(collect_runs(paths))
    assert list(table.xs("paper").index) == ["ClipAD smoothing=8.0"]


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
    path = write(tmp_path / "results.csv", "ClipAD", MVTEC)
    command = [str(Path(sys.executable).with_name("anomalib-clipad")), "report", str(path), "--output", "out"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "| mean       | ClipAD |       0.570 |" in result.stdout
    assert (tmp_path / "out/report.md").read_text().splitlines()[0] in result.stdout
    assert len(pd.read_csv(tmp_path / "out/report.csv")) == len(MVTEC) + 3
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
