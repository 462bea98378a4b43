"""`anomalib-clipad demo`: CLIP-AD on parts it has never seen, from nothing to a table and a sheet of heat maps."""

from __future__ import annotations

import csv
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm.auto import tqdm

from anomalib_clipad.data.generated.categories import HELD_OUT_CATEGORIES

from .sheet import Row, write_sheet


class Result(NamedTuple):
    """What the demo finds out about a category.

    Attributes:
        figures: Name of the figure to its value.
        rows: Pictures for the contact sheet.
    """

    figures: dict[str, float]
    rows: list[Row]


def demo(
    output: Path = Path("demo"),
    categories: list[str] | None = None,
    backbone: str = "clipad-mini",
    pretrained: str | None = "laion400m_e31",
    data: Path | None = None,
    good_images: int = 40,
    defective_images: int = 56,
    pictures: int = 1,
    seed: int = 0,
) -> None:
    """Generate parts, look for their defects, and write a results table and a contact sheet.

    Nothing is downloaded. The categories by default took no part in the training of clipad-mini.

    Args:
        output: Folder of ``results.csv`` and ``contact_sheet.png``.
        categories: Which generated categories; by default the held-out ones.
        backbone: Backbone as ``ClipAD`` takes it.
        pretrained: Its weights as ``ClipAD`` takes them; ``null`` for random ones.
        data: Folder of the generated pictures; by default in the user's cache.
        good_images: Number of flawless pictures per category.
        defective_images: Number of defective pictures per category, over seven kinds of defect.
        pictures: Rows of the contact sheet per category.
        seed: Seed of the pictures.
    """
    start = time.monotonic()
    _be_quiet()
    names = categories or list(HELD_OUT_CATEGORIES)
    output.mkdir(parents=True, exist_ok=True)
    table: dict[str, dict[str, float]] = {}
    rows: list[Row] = []
    for name in (progress := tqdm(names, unit="category")):
        progress.set_description(name)
        result = examine(name, backbone, pretrained, data, good_images, defective_images, pictures, seed)
        table[name] = result.figures
        rows += result.rows
    table["mean"] = {key: sum(row[key] for row in table.values()) / len(table) for key in table[names[0]]}
    write_table(output / "results.csv", table)
    write_sheet(output / "contact_sheet.png", rows)
    print(format_table(table))
    print(f"\n{output / 'results.csv'}\n{output / 'contact_sheet.png'}\n{time.monotonic() - start:.0f} s")


def examine(
    category: str,
    backbone: str = "clipad-mini",
    pretrained: str | None = "laion400m_e31",
    data: Path | None = None,
    good_images: int = 40,
    defective_images: int = 56,
    pictures: int = 0,
    seed: int = 0,
) -> Result:
    """Test one generated category through anomalib's engine, by the paper's protocol.

    Args:
        category: Generated category.
        backbone: Backbone as ``ClipAD`` takes it.
        pretrained: Its weights as ``ClipAD`` takes them.
        data: Folder of the generated pictures; by default in the user's cache.
        good_images: Number of flawless pictures.
        defective_images: Number of defective pictures.
        pictures: How many defective pictures to keep for the contact sheet.
        seed: Seed of the pictures.
    """
    from anomalib.engine import Engine

    from anomalib_clipad import ClipAD
    from anomalib_clipad.data import GeneratedParts

    datamodule = GeneratedParts(
        data, category, good_images=good_images, defective_images=defective_images, seed=seed, eval_batch_size=16
    )
    model = ClipAD(backbone=backbone, pretrained=pretrained, visualizer=False)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(
            default_root_path=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, barebones=False
        )
        (figures,) = engine.test(model=model, datamodule=datamodule, verbose=False)
    rows = _rows(model, datamodule, category, pictures) if pictures else []
    return Result({key: float(value) for key, value in figures.items()}, rows)


@torch.inference_mode()
def _rows(model: torch.nn.Module, datamodule: object, category: str, count: int) -> list[Row]:
    """Defective pictures, spread over the kinds of defect, as the model sees them."""
    data = datamodule.test_data  # type: ignore[attr-defined]
    defective = [i for i, label in enumerate(data.samples.label_index) if label == 1]
    start = sum(map(ord, category)) % len(defective)
    rows = []
    for k in range(count):
        item = data[defective[(start + k * len(defective) // count) % len(defective)]]
        prediction = model(item.image.unsqueeze(0))
        rows.append(
            Row(
                f"{category}: {Path(item.image_path).parent.name}",
                item.image.permute(1, 2, 0).numpy(),
                item.gt_mask.squeeze().numpy().astype(bool),
                prediction.anomaly_map.squeeze().numpy(),
            )
        )
    return rows


def write_table(path: Path, table: dict[str, dict[str, float]]) -> None:
    """Write figures (category to figure to value) as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["category", *next(iter(table.values()))])
        for name, row in table.items():
            writer.writerow([name, *(f"{value:.4f}" for value in row.values())])


def format_table(table: dict[str, dict[str, float]]) -> str:
    """The same for the terminal, in Markdown."""
    names = list(next(iter(table.values())))
    lines = [f"| {'category':<14} | {' | '.join(names)} |", f"| {'-' * 14} | {' | '.join('-' * len(n) for n in names)} |"]
    for category, row in table.items():
        lines.append(f"| {category:<14} | {' | '.join(f'{row[name]:>{len(name)}.3f}' for name in names)} |")
    return "\n".join(lines)


def _be_quiet() -> None:
    """Leave the terminal to the results."""
    warnings.filterwarnings("ignore", module=r"(lightning|torch|anomalib)\b")
    for name in ("lightning.pytorch", "lightning.fabric", "anomalib", "open_clip", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
