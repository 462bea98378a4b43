"""Runs beside the paper's cells: only CLIP-AD on all of MVTec AD with exactly the paper's settings."""

from pathlib import Path

import pandas as pd
import pytest

from anomalib_clipad.lab.paper import paper, published
from anomalib_clipad.metrics import METRICS

MVTEC = [f"category{number}" for number in range(15)]


def rows(model: str = "ClipAD", categories: list[str] = MVTEC, **settings: object) -> pd.DataFrame:
    """Rows as anomalib writes them, with metrics that rise from 0.5 by 0.01 from category to category."""
    return pd.DataFrame(
        {
            "model.class_path": model,
            **{f"model.init_args.{name}": value for name, value in settings.items()},
            "data.class_path": "MVTecAD",
            "data.init_args.category": category,
            **dict.fromkeys(METRICS, 0.5 + i / 100),
        }
        for i, category in enumerate(categories)
    )


@pytest.mark.parametrize(("adapter", "f1", "pro"), [(None, 0.359, 0.753), ("visa", 0.400, 0.851)])
def test_all_of_mvtec_ad_stands_beside_the_papers_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], adapter: str | None, f1: float, pro: float
) -> None:
    rows(**({"adapter": adapter} if adapter else {})).to_csv(tmp_path / "results.csv", index=False)
    paper([tmp_path / "results.csv"])
    lines = capsys.readouterr().out.splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells == [
        ["ClipAD", "pixel_F1Max", "0.570", f"{f1:.3f}", f"{0.57 - f1:+.3f}"],
        ["ClipAD", "pixel_PRO", "0.570", f"{pro:.3f}", f"{0.57 - pro:+.3f}"],
    ]


def test_a_run_with_the_papers_settings_is_shown_without_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for smoothing in (8.0, 2.0):
        rows(smoothing=smoothing).to_csv(tmp_path / f"{smoothing}.csv", index=False)
    paper([tmp_path / "8.0.csv", tmp_path / "2.0.csv"])
    printed = capsys.readouterr().out
    assert printed.count("smoothing=8.0") == 2
    assert "smoothing=2.0" not in printed


def test_without_a_comparable_run_it_says_what_one_is(tmp_path: Path) -> None:
    rows(smoothing=2.0).to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(
        ValueError, match=r"No run in .*results.csv .* expected ClipAD on all 15 categories of MVTec AD"
    ):
        paper([tmp_path / "results.csv"])


@pytest.mark.parametrize(("model", "categories"), [("ClipAD", MVTEC[:14]), ("WinClipBaseline", MVTEC)])
def test_nothing_else_is_compared_with_the_paper(model: str, categories: list[str]) -> None:
    assert not published(rows(model, categories))


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
def test_the_papers_settings_may_be_given_or_left_out(settings: dict[str, object]) -> None:
    sdp = published(rows(**settings))
    sdp_plus = published(rows("anomalib_clipad.ClipAD", **{**settings, "adapter": "visa"}))
    assert (sdp["pixel_PRO"], sdp_plus["pixel_PRO"]) == (0.753, 0.851)


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
def test_one_other_setting_and_the_paper_is_no_target(settings: dict[str, object], adapter: str | None) -> None:
    assert published(rows(**{**PAPERS_OWN, **settings, "adapter": adapter})) == {}


@pytest.mark.parametrize("settings", [{"adapter": "mvtec"}, {"adapter": "mine.safetensors"}, {"variant": "sdp_plus"}])
def test_only_the_layers_trained_on_visa_are_the_papers(settings: dict[str, object]) -> None:
    assert not published(rows(**settings))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("data.class_path", ["VisA"] * 15),
        ("data.init_args.val_split_mode", ["from_test"] * 15),
        ("data.init_args.val_split_mode", [*["same_as_test"] * 14, "none"]),
        ("data.init_args.augmentations.class_path", ["CenterCrop"] * 15),
    ],
)
def test_other_data_or_another_protocol_is_not_the_papers(column: str, values: list[str]) -> None:
    assert not published(rows().assign(**{column: values}))
