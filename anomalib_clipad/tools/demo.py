"""`anomalib-clipad demo`: CLIP-AD on parts it has never seen, from nothing to a table and a sheet of heat maps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from anomalib_clipad.metrics import Metrics
from anomalib_clipad.parts.categories import HELD_OUT_CATEGORIES

from .evaluation import evaluate, format_table, with_mean, write_table
from .sheet import Tile, write_sheet

if TYPE_CHECKING:
    from anomalib_clipad import ClipAD
    from anomalib_clipad.data import GeneratedParts


def demo(
    output: Path = Path("demo"),
    categories: list[str] | None = None,
    data: Path | None = None,
    good_images: int = 40,
    defective_images: int = 56,
    pictures: int = 2,
    seed: int = 0,
) -> None:
    """Generate parts, look for their defects with clipad-mini, and write a results table and a contact sheet.

    Nothing is downloaded. The categories by default took no part in the training of clipad-mini.

    Args:
        output: Folder of ``results.csv`` and ``contact_sheet.png``.
        categories: Which generated categories; by default the held-out ones.
        data: Folder of the generated pictures; by default in the user's cache.
        good_images: Number of flawless pictures per category.
        defective_images: Number of defective pictures per category, over seven kinds of defect.
        pictures: Pictures of each category on the contact sheet.
        seed: Seed of the pictures.
    """
    from anomalib_clipad import ClipAD
    from anomalib_clipad.data import GeneratedParts

    start = time.monotonic()
    names = categories or list(HELD_OUT_CATEGORIES)
    modules = [
        GeneratedParts(
            data,
            name,
            good_images=good_images,
            defective_images=defective_images,
            train_images=1,
            eval_batch_size=16,
            seed=seed,
        )
        for name in names
    ]
    output.mkdir(parents=True, exist_ok=True)
    table: dict[str, Metrics] = {}
    rows: list[Tile] = []
    progress = tqdm(modules, unit="category")
    for datamodule in progress:
        progress.set_description(datamodule.category)
        model = ClipAD(backbone="clipad-mini", visualizer=False)
        table[datamodule.category] = evaluate(model, datamodule)
        rows += examples(model, datamodule, pictures)
    table = with_mean(table)
    write_table(output / "results.csv", table)
    write_sheet(output / "contact_sheet.png", rows)
    print(format_table(table))
    print(f"\n{output / 'results.csv'} and {output / 'contact_sheet.png'} written in {time.monotonic() - start:.0f} s.")


@torch.inference_mode()
def examples(model: ClipAD, datamodule: GeneratedParts, count: int) -> list[Tile]:
    """Defective test pictures, of kinds that differ from category to category, with what the model finds."""
    data = datamodule.test_data
    defective = [i for i, label in enumerate(data.samples.label_index) if label == 1]
    first = sum(map(ord, datamodule.category)) % len(defective)
    rows = []
    for number in range(count):
        item = data[defective[(first + number * len(defective) // count) % len(defective)]]
        prediction = model(item.image.unsqueeze(0))
        rows.append(
            Tile(
                f"{datamodule.category}: {Path(item.image_path).parent.name}",
                item.image.permute(1, 2, 0).numpy(),
                item.gt_mask.squeeze().numpy().astype(bool),
                prediction.anomaly_map.squeeze().numpy(),
            )
        )
    return rows
