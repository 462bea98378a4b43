"""`anomalib-clipad report`: benchmark results as one table (Markdown, CSV) and one picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from anomalib_clipad.adaptors.files import TrainedLayers
from anomalib_clipad.adaptors.registry import ADAPTORS
from anomalib_clipad.metrics import METRICS

from .tables import Row, markdown_table

_IGNORED = ("job_duration", "fit_duration", "test_duration")
_ADAPTER = "model.init_args.adapter"
_CATEGORY = ("data.init_args.category", "data.init_args.name", "data.class_path")


class Run(NamedTuple):
    """One model with one set of settings on some categories.

    Attributes:
        name: What tells it from the other runs.
        settings: Value of every setting that all its rows share.
        metrics: A row per category, a column per metric.
        rows: The rows of the CSV that the run was read from.
    """

    name: str
    settings: dict[str, str]
    metrics: pd.DataFrame
    rows: pd.DataFrame


def report(results: Sequence[Path], output: Path = Path("report")) -> None:
    """Show runs of anomalib's benchmark side by side.

    Args:
        results: CSV files that ``anomalib benchmark`` has written.
        output: Folder of ``report.md``, ``report.csv`` and ``report.png``.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is not the result of a benchmark.
    """
    runs = collect_runs(results)
    table = tabulate(runs)
    text = f"{format_table(table)}\n\n{format_settings(runs)}\n"
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.md").write_text(text, encoding="utf-8")
    table.to_csv(output / "report.csv", float_format="%.4f")
    draw(table, output / "report.png")
    print(text)
    print(f"Written: {', '.join(str(output / f'report.{kind}') for kind in ('md', 'csv', 'png'))}")


def read_results(path: Path) -> pd.DataFrame:
    """The rows of a benchmark's CSV, metrics as numbers.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is empty, holds no metrics, or something that is no number where a metric belongs.
    """
    try:
        rows = pd.read_csv(path)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        msg = f"{path} is no CSV table ({error}); expected results.csv of `anomalib benchmark`."
        raise ValueError(msg) from error
    known = [name for name in METRICS if name in rows]
    if not known or not any(name in rows for name in _CATEGORY):
        msg = (
            f"{path} is not the result of a benchmark: its columns are {', '.join(rows.columns[:8])} ...; expected "
            f"{_CATEGORY[0]} (or name, or class_path) and some of {', '.join(METRICS)}."
        )
        raise ValueError(msg)
    if rows.empty:
        msg = f"{path} has columns but no rows: the benchmark finished no job."
        raise ValueError(msg)
    for name in known:
        numbers = pd.to_numeric(rows[name], errors="coerce")
        wrong = rows.index[numbers.isna() & rows[name].notna()]
        if len(wrong):
            msg = f"{path}, line {wrong[0] + 2}: '{rows[name][wrong[0]]}' is no number for {name}."
            raise ValueError(msg)
        rows[name] = numbers
    return rows


def collect_runs(paths: Iterable[Path]) -> list[Run]:
    """The runs in some files: rows of a file whose settings of the model are the same belong together.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file cannot be understood, or a run has two rows for one category.
    """
    parts: list[tuple[Path, pd.DataFrame]] = []
    for path in paths:
        rows = read_results(path)
        model = [name for name in rows if name.startswith("model.")]
        groups = rows.groupby(model, dropna=False, sort=False) if model else [("", rows)]
        parts += [(path, part) for _, part in groups]
    shared = [_shared(part) for _, part in parts]
    runs = []
    for name, settings, (path, part) in zip(_names(shared, parts), shared, parts, strict=True):
        column = next(column for column in _CATEGORY if column in part and part[column].notna().all())
        metrics = part.set_index(part[column].astype(str))[[name for name in METRICS if name in part]]
        if metrics.index.has_duplicates:
            twice = metrics.index[metrics.index.duplicated()][0]
            msg = f"{path} holds several rows for '{twice}' with the same settings; give each run a file of its own."
            raise ValueError(msg)
        runs.append(Run(name, {"file": str(path), **settings}, metrics.rename_axis("category"), part))
    return runs


def tabulate(runs: Sequence[Run]) -> pd.DataFrame:
    """All metrics: rows (category, run) with the runs of a category side by side, then means."""
    blocks = {run.name: run.metrics for run in runs}
    categories = list(dict.fromkeys(category for run in runs for category in run.metrics.index))
    rows = {
        (category, name): metrics.loc[category]
        for category in categories
        for name, metrics in blocks.items()
        if category in metrics.index
    }
    rows |= {("mean", name): metrics.mean() for name, metrics in blocks.items()}
    table = pd.DataFrame(rows).T.reindex(columns=[name for name in METRICS if any(name in b for b in blocks.values())])
    return table.rename_axis(["category", "run"])


def format_table(table: pd.DataFrame) -> str:
    """Metrics as a Markdown table; what is undefined is a dash."""
    columns = [("category", ""), ("run", ""), *((name, ".3f") for name in table)]
    rows: list[Row] = [[category, run, *metrics] for (category, run), metrics in table.iterrows()]
    return markdown_table(columns, rows)


def format_settings(runs: Sequence[Run]) -> str:
    """The settings of each run as a Markdown list."""
    return "\n".join(
        f"- **{run.name}**: " + ", ".join(f"{name} = `{value}`" for name, value in run.settings.items()) for run in runs
    )


def draw(table: pd.DataFrame, path: Path) -> None:
    """A heat map of the table as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5 + 1.1 * len(table.columns), 1.2 + 0.3 * len(table)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(table, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    axes.set_xticks(range(len(table.columns)), table.columns, rotation=30, ha="right")
    axes.set_yticks(range(len(table)), [f"{category} · {run}" for category, run in table.index])
    for (row, column), value in pd.DataFrame(table.to_numpy()).stack().items():
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=8)
    figure.savefig(path, dpi=120)


def _shared(rows: pd.DataFrame) -> dict[str, str]:
    """Settings that are the same in all rows."""
    settings = rows.drop(columns=[name for name in rows if name in {*METRICS, *_IGNORED}])
    return {str(name): str(settings[name].iloc[0]) for name in settings if settings[name].nunique(dropna=False) == 1}


def _names(shared: Sequence[dict[str, str]], parts: Sequence[tuple[Path, pd.DataFrame]]) -> list[str]:
    """Each run by its model, and by what else tells it from the other runs of that model."""
    models = [settings.get("model.class_path", path.stem) for settings, (path, _) in zip(shared, parts, strict=True)]
    names = []
    for model, settings in zip(models, shared, strict=True):
        rivals = [other for rival, other in zip(models, shared, strict=True) if rival == model]
        telling = [
            _variant(value) if name == _ADAPTER else f"{name.rpartition('.')[2]}={value}"
            for name, value in settings.items()
            if name.startswith("model.") and any(other.get(name) != value for other in rivals)
        ]
        names.append(" ".join([model, *telling]))
    return [
        name if names.count(name) == 1 else f"{name} ({path.parent.name}, {number})"
        for number, (name, (path, _)) in enumerate(zip(names, parts, strict=True), 1)
    ]


def _variant(adapter: str) -> str:
    """What the layers make of the model: SDP, or an adaptor with the name of released layers."""
    if adapter in {"nan", "None"}:
        return "SDP"
    title = next((kind.title for kind in ADAPTORS.values() if adapter in kind.released), None)
    return f"{title} {adapter}" if title else ADAPTORS[TrainedLayers(adapter).settings({})["variant"]].title
