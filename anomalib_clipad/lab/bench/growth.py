"""How cost grows with batch size, image size and backbone: a table and a plot, beside ``encode_image``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from rich.progress import track

from anomalib_clipad.backbones import load_backbone
from anomalib_clipad.tools.tables import Row, markdown_table

from .measurements import forward_memory, forward_seconds


class Setting(NamedTuple):
    """Images of one size through one backbone, ``batch_size`` at a time."""

    backbone: str
    image_size: int
    batch_size: int


class Cost(NamedTuple):
    """Seconds per batch and peak megabytes above the model, ours and ``encode_image``'s."""

    seconds: float
    encode_seconds: float
    memory: float
    encode_memory: float


Series = Mapping[str, tuple[Setting, ...]]
"""Settings along axes; an axis has the name of the field that changes."""

SERIES: Series = {
    "batch_size": tuple(Setting("ViT-B-16-plus-240", 240, count) for count in (1, 2, 4, 8, 16, 32)),
    "image_size": tuple(Setting("ViT-B-16-plus-240", size, 4) for size in (240, 336, 480, 720)),
    "backbone": tuple(
        Setting(name, size, 8) for name, size in (("ViT-B-16", 224), ("ViT-B-16-plus-240", 240), ("ViT-L-14", 224))
    ),
}


def growth(output: Path, repeats: int, series: Series = SERIES) -> str:
    """Measure all settings, write ``growth.md`` and ``growth.png``, and return the table.

    Args:
        output: Folder of the two files.
        repeats: Runs of each side, in turns; medians are taken.
        series: What to measure.
    """
    settings = dict.fromkeys(setting for axis in series.values() for setting in axis)
    costs = {setting: measure(setting, repeats) for setting in track(settings, "Measuring growth")}
    table = "\n\n".join(cost_table(axis, {setting: costs[setting] for setting in series[axis]}) for axis in series)
    output.mkdir(parents=True, exist_ok=True)
    (output / "growth.md").write_text(table + "\n", encoding="utf-8")
    cost_plot(series, costs).savefig(output / "growth.png", dpi=120)
    return table


def measure(setting: Setting, repeats: int) -> Cost:
    """Time and memory of one setting."""
    backbone = load_backbone(setting.backbone, None, setting.image_size)
    return Cost(*forward_seconds(backbone, setting.batch_size, repeats), *forward_memory(*setting))


def cost_table(axis: str, costs: Mapping[Setting, Cost]) -> str:
    """The settings along one axis, a row each, as a Markdown table."""
    seconds = [("s per batch", ".2f"), ("`encode_image`, s", ".2f"), ("ratio", ".2f")]
    memory = [("MB", ".0f"), ("`encode_image`, MB", ".0f"), ("ratio", ".2f")]
    rows: list[Row] = [
        [
            str(getattr(setting, axis)),
            *(cost.seconds, cost.encode_seconds, cost.seconds / cost.encode_seconds),
            *(cost.memory, cost.encode_memory, cost.memory / cost.encode_memory),
        ]
        for setting, cost in costs.items()
    ]
    return markdown_table([(axis.replace("_", " "), ""), *seconds, *memory], rows)


def cost_plot(series: Series, costs: Mapping[Setting, Cost]) -> Figure:
    """A column of plots per axis: time above, memory below."""
    figure = Figure(figsize=(3.6 * len(series), 5.4), layout="constrained")
    axes = figure.subplots(2, len(series), squeeze=False)
    for column, (name, settings) in enumerate(series.items()):
        ticks = [str(getattr(setting, name)) for setting in settings]
        for row, (unit, ours, theirs) in enumerate((("s per batch", 0, 1), ("MB above the model", 2, 3))):
            plot = axes[row, column]
            plot.plot(ticks, [costs[setting][ours] for setting in settings], "o-", label="CLIP-AD")
            plot.plot(ticks, [costs[setting][theirs] for setting in settings], "s--", label="encode_image")
            plot.set(xlabel=name.replace("_", " "), ylabel=unit, ylim=(0, None))
            plot.tick_params("x", labelsize=7)
    axes[0, 0].legend()
    return figure
