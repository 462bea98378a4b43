"""`anomalib-clipad demo`: CLIP-AD on parts it has never seen, from nothing to a table and a sheet of heat maps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from anomalib_clipad.checks import check_counts
from anomalib_clipad.images.picture import read
from anomalib_clipad.inspection.finding import Finding, at_size
from anomalib_clipad.inspection.page import About, PageRow, heat_map, thumbnail, write_page
from anomalib_clipad.inspection.run_page import relative_to
from anomalib_clipad.parts.categories import HELD_OUT_CATEGORIES
from anomalib_clipad.storage import atomic_folder
from anomalib_clipad.verdicts.regions import find_regions

from .evaluation import format_table, score, with_mean, write_table
from .sheet import Tile, write_sheet

if TYPE_CHECKING:
    from anomalib.data import ImageBatch

    from anomalib_clipad.metrics import Metrics


_ABOUT = About(decision="The threshold is the middle of the scale, without calibration; wrong verdicts are marked.")


def demo(
    output: Path = Path("demo"),
    categories: list[str] | None = None,
    data: Path | None = None,
    good_images: int = 12,
    defective_images: int = 14,
    pictures: int = 2,
    seed: int = 0,
) -> None:
    """Generate parts, look for their defects with clipad-mini, and write metrics, a contact sheet and a page.

    Nothing is downloaded. The categories by default took no part in the training of clipad-mini. The images are few and
    the metrics those of images, so that it takes less than a minute; ``make report`` measures all seven on more.

    Args:
        output: Folder of ``results.csv``, ``contact_sheet.png`` and ``index.html``.
        categories: Which generated categories; by default the held-out ones.
        data: Folder of the generated pictures; by default in the user's cache.
        good_images: Number of flawless pictures per category.
        defective_images: Number of defective pictures per category, over seven kinds of defect.
        pictures: Defective pictures of each category on the contact sheet, beside a flawless one.
        seed: Seed of the pictures.

    Raises:
        ValueError: If a category is unknown or a number makes no data set.
        OSError: If nothing can be written to a folder.
    """
    check_counts(pictures=pictures)
    from anomalib_clipad import ClipAD
    from anomalib_clipad.data import GeneratedParts

    start = time.monotonic()
    modules = [
        GeneratedParts(
            data,
            name,
            good_images=good_images,
            defective_images=defective_images,
            train_images=1,
            eval_batch_size=8,
            seed=seed,
        )
        for name in categories or HELD_OUT_CATEGORIES
    ]
    output.mkdir(parents=True, exist_ok=True)
    table: dict[str, Metrics] = {}
    tiles: list[Tile] = []
    rows: list[PageRow] = []
    with tqdm(total=len(modules) * (good_images + defective_images), unit="image") as bar:
        for datamodule in modules:
            bar.set_description(datamodule.category)
            batches = score(ClipAD(backbone="clipad-mini", visualizer=False), datamodule, bar.update)
            table[datamodule.category] = image_metrics(batches)
            tiles += examples(datamodule.category, batches, pictures)
            rows += [_row(output, datamodule.category, item) for batch in batches for item in batch]
    table = with_mean(table)
    write_table(output / "results.csv", table)
    write_sheet(output / "contact_sheet.png", tiles, columns=1 + min(pictures, defective_images))
    page = write_page(output, rows, "Generated parts", threshold=0.5, about=_ABOUT)
    print(format_table(table))
    print(f"\n{output / 'results.csv'}, {output / 'contact_sheet.png'} written in {time.monotonic() - start:.0f} s.")
    print(f"Every image, to look through in a browser: {page}")


def _row(output: Path, category: str, item: Any) -> PageRow:
    """An image on the page, with a heat map if it is called defective."""
    path = Path(item.image_path)
    image = read(path).shown
    anomaly_map = item.anomaly_map.squeeze().numpy()
    regions = find_regions(at_size(anomaly_map, image.shape[:2]), 0.5)
    finding = Finding(image, float(item.pred_score), bool(item.pred_label), 0.5, anomaly_map, regions, path=path)
    overlay = Path("overlays") / category / f"{path.parent.name}-{path.stem}.jpg"
    if finding.label:
        with atomic_folder(output / overlay.parent) as folder:
            finding.overlay().save(folder / overlay.name, quality=90)
    return PageRow(
        path=f"{category}/{path.parent.name}/{path.name}",
        score=finding.score,
        p_value=None,
        label=finding.label,
        thumbnail=thumbnail(image),
        image=relative_to(path, output),
        overlay=overlay.as_posix() if finding.label else None,
        regions=len(regions),
        boxes=tuple(region.box for region in regions),
        size=(image.shape[1], image.shape[0]),
        heat_map=heat_map(finding),
        truth=bool(item.gt_label),
    )


def image_metrics(batches: list[ImageBatch]) -> Metrics:
    """AUROC, F1-max and average precision of the images' scores."""
    from anomalib_clipad.host.evaluator import SevenMetrics

    metrics: list[Any] = [metric for metric in SevenMetrics().test_metrics if str(metric.name).startswith("image_")]
    for metric in metrics:
        for batch in batches:
            metric.update(batch)
    return {str(metric.name): float(metric.compute()) for metric in metrics}


def examples(category: str, batches: list[ImageBatch], count: int) -> list[Tile]:
    """A flawless image and ``count`` defective ones, of kinds that differ from category to category."""
    items = [item for batch in batches for item in batch]
    good, defective = ([item for item in items if bool(item.gt_label) == label] for label in (False, True))
    first, count = sum(map(ord, category)), min(count, len(defective))
    chosen = [defective[(first + number * len(defective) // count) % len(defective)] for number in range(count)]
    return [_tile(category, item) for item in (good[first % len(good)], *chosen)]


def _tile(category: str, item: Any) -> Tile:  # an ImageItem with all of its fields
    kind = Path(item.image_path).parent.name.replace("_", " ")
    return Tile(
        title=f"{category}: {kind}",
        image=read(item.image_path).shown,
        mask=item.gt_mask.squeeze().numpy().astype(bool),
        anomaly_map=item.anomaly_map.squeeze().numpy(),
        found=item.pred_mask.squeeze().numpy().astype(bool),
        score=float(item.pred_score),
        defective=bool(item.pred_label),
    )
