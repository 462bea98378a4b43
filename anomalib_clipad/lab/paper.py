"""`python -m anomalib_clipad.lab paper`: benchmark runs beside the paper's results, where they are comparable."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from anomalib_clipad.tools.report import Run, collect_runs
from anomalib_clipad.tools.tables import Row, markdown_table

RESULTS = {
    "SDP": {"pixel_F1Max": 0.359, "pixel_PRO": 0.753},
    "SDP+": {"pixel_F1Max": 0.400, "pixel_PRO": 0.851},
}
"""Means over the 15 categories of MVTec AD, as far as they are known to this project."""

_CATEGORIES = 15
_SETTINGS: dict[str, dict[str, Any]] = {
    "model": {
        "backbone": "ViT-B-16-plus-240",
        "pretrained": "laion400m_e31",
        "image_size": 240,
        "rvs": "dbscan",
        "rvs_options.eps": 0.5,
        "rvs_options.min_samples": 15,
        "prompts": "industrial",
        "smoothing": 8,
        "tap": "reference",
        "precision": "float32",
        "adapter": "visa",
        "pre_processor": True,
        "post_processor": True,
        "evaluator": True,
        "k_shot": 0,
        "mutual": False,
    },
    "data": {"val_split_mode": "same_as_test", "test_split_mode": "from_dir"},
}
"""The paper's settings, which are the defaults; only the adapter's default is none, SDP."""
_WITHOUT_EFFECT = {
    "model": {
        *("variant", "text_cache", "feature_cache", "epochs", "learning_rate", "as_coded", "visualizer"),
        *("text_weight", "pool"),  # without images to compare with
    },
    "data": {
        *("root", "category", "train_batch_size", "eval_batch_size", "num_workers", "seed"),
        *("train_augmentations", "val_split_ratio", "test_split_ratio"),
    },
}


def paper(results: Sequence[Path]) -> None:
    """Print how far benchmark runs are from what the paper reports.

    Args:
        results: CSV files that ``anomalib benchmark`` has written.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is not the result of a benchmark, or no run in the files has the paper's settings.
    """
    rows: list[Row] = [row for run in collect_runs(results) for row in beside_paper(run)]
    if not rows:
        msg = (
            f"No run in {', '.join(map(str, results))} may be compared with the paper; expected ClipAD on all "
            f"{_CATEGORIES} categories of MVTec AD with the paper's settings (configs/benchmark/mvtec_ad.yaml)."
        )
        raise ValueError(msg)
    print(
        markdown_table([("run", ""), ("metric", ""), ("mean", ".3f"), ("paper", ".3f"), ("difference", "+.3f")], rows)
    )


def beside_paper(run: Run) -> Iterator[Row]:
    """Name, metric, mean, the paper's mean and the difference, for every metric that is known of the paper."""
    for metric, target in published(run.rows).items():
        if metric in run.metrics:
            mean = float(run.metrics[metric].mean())
            yield [run.name, metric, mean, target, mean - target]


def published(rows: pd.DataFrame) -> dict[str, float]:
    """What the paper reports for a run: nothing, unless it is CLIP-AD on all of MVTec AD with the paper's settings.

    Args:
        rows: The run's rows of the CSV that ``anomalib benchmark`` writes, one per category. Settings that it does
            not have are defaults.
    """
    classes = {kind: set(rows.get(f"{kind}.class_path", pd.Series("")).astype(str)) for kind in _SETTINGS}
    names = {kind: {path.rpartition(".")[2] for path in paths} for kind, paths in classes.items()}
    if names != {"model": {"ClipAD"}, "data": {"MVTecAD"}} or len(rows) != _CATEGORIES:
        return {}
    if not all(_is_the_papers(kind, *setting) for kind in _SETTINGS for setting in _given(rows, kind)):
        return {}
    model = list(_given(rows, "model"))
    if ("adapter", "visa") in model:
        return RESULTS["SDP+"]
    others = {value for name, value in model if name == "variant"} - {"sdp"}
    return {} if others else RESULTS["SDP"]  # layers of one's own, or another method


def _given(rows: pd.DataFrame, kind: str) -> Iterator[tuple[str, Any]]:
    """Name and value of every setting of the model or of the data that is not null in some row."""
    prefix = f"{kind}.init_args."
    for column in rows:
        if not str(column).startswith(prefix):
            continue
        name = str(column).removeprefix(prefix)
        for value in map(_parse, rows[column].unique()):
            if isinstance(value, dict):
                yield from ((f"{name}.{key}", part) for key, part in value.items())
            elif value is not None or name == "pretrained":  # null: random weights
                yield name, value


def _is_the_papers(kind: str, name: str, value: Any) -> bool:
    return name in _WITHOUT_EFFECT[kind] or (name in _SETTINGS[kind] and value == _SETTINGS[kind][name])


def _parse(cell: Any) -> Any:
    """A cell as Python data, ``None`` where it is empty."""
    if not isinstance(cell, str):
        return None if pd.isna(cell) else cell
    try:
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError):
        return cell
