"""`anomalib-clipad demo`: CLIP-AD on parts it has never seen, from nothing to verdicts, a table and a picture."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from anomalib_clipad.checks import check_counts
from anomalib_clipad.images.picture import read
from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.page import About, PageRow, row_of, write_page
from anomalib_clipad.inspection.run_page import relative_to
from anomalib_clipad.parts.categories import HELD_OUT_CATEGORIES
from anomalib_clipad.parts.folder import Settings, ensure_category
from anomalib_clipad.storage import cache_folder

from .evaluation import format_table, with_mean, write_table
from .sheet import Tile, write_sheet

if TYPE_CHECKING:
    from anomalib_clipad.metrics import Metrics

_NORMAL, _RATE = 20, 0.05
_CALIBRATED = f"calibrated on {_NORMAL} good pictures of each part, false-alarm rate {100 * _RATE:g} %"


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

    Nothing is downloaded. The categories by default took no part in the training of clipad-mini. An inspector of each
    is calibrated on twenty good pictures that it does not judge, and calls at most one good picture in twenty
    defective, on average. The images are few, to be quick; ``make report`` measures on more.

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
    start = time.monotonic()
    wanted = [
        Settings(category, seed, _NORMAL, good_images, defective_images)
        for category in categories or HELD_OUT_CATEGORIES
    ]
    root = cache_folder("generated_parts") if data is None else data.expanduser()
    output.mkdir(parents=True, exist_ok=True)
    table: dict[str, Metrics] = {}
    tiles: list[Tile] = []
    chosen: list[Tile] = []
    with tqdm(total=len(wanted) * (good_images + defective_images), desc="Inspecting", unit="image") as bar:
        for settings, found in zip(wanted, _all_inspected(root, wanted), strict=True):
            table[settings.category] = image_metrics(found)
            chosen += examples(settings.category, found, pictures)
            tiles += found
            bar.update(len(found))
    table = with_mean(table)
    write_table(output / "results.csv", table)
    write_sheet(output / "contact_sheet.png", chosen, 1 + min(pictures, defective_images), _CALIBRATED)
    mistakes = mistaken(tiles)
    about = About(decision=f"{_CALIBRATED[0].upper()}{_CALIBRATED[1:]}.", notes=tuple(mistakes))
    page = write_page(output, [_row(output, tile) for tile in tiles], "Generated parts", None, about)
    print(format_table(table))
    print("", about.decision, *mistakes, sep="\n")
    print(f"{output / 'results.csv'}, {output / 'contact_sheet.png'} written in {time.monotonic() - start:.0f} s.")
    print(f"Every image, to look through in a browser: {page}")


def _all_inspected(root: Path, wanted: Sequence[Settings]) -> Iterator[list[Tile]]:
    """What ``inspected`` says of each category, in order: as many at once as there are processors, a thread each."""
    workers = min(len(wanted), os.cpu_count() or 1)
    with _without_bars(), ProcessPoolExecutor(workers, get_context("spawn"), _on_one_thread) as pool:
        try:
            yield from pool.map(inspected, repeat(root), wanted)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _on_one_thread() -> None:
    import torch  # takes seconds, which the process that waits does without

    torch.set_num_threads(1)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Processes that start meanwhile show no progress bars, of which several would write over each other."""
    name = "TQDM_DISABLE"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def inspected(root: Path, settings: Settings) -> list[Tile]:
    """The test pictures of a category as an inspector sees them that is calibrated on its training pictures."""
    folder = ensure_category(root, settings)
    normal = folder / "train" / "good"
    inspector = Inspector(settings.category, backbone="clipad-mini", calibration=normal, false_alarm_rate=_RATE)
    paths = sorted(folder.glob("test/*/*.png"))
    findings = zip(paths, inspector.inspect(paths), strict=True)
    return [_tile(folder, settings.category, path, finding) for path, finding in findings]


def _tile(folder: Path, category: str, path: Path, finding: Finding) -> Tile:
    kind = path.parent.name
    truth = folder / "ground_truth" / kind / f"{path.stem}_mask.png"
    mask = np.zeros(finding.image.shape[:2], bool) if kind == "good" else read(truth).shown[..., 0] > 0
    return Tile(f"{category}/{kind}/{path.stem}", finding, mask)


def image_metrics(tiles: Sequence[Tile]) -> Metrics:
    """AUROC, F1-max and average precision of the images' scores, whatever the threshold."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    truth, scores = [tile.defective for tile in tiles], [tile.finding.score for tile in tiles]
    precision, recall, _ = precision_recall_curve(truth, scores)
    return {
        "image_AUROC": float(roc_auc_score(truth, scores)),
        "image_F1Max": float((2 * precision * recall / np.maximum(precision + recall, 1e-10)).max()),
        "image_AP": float(average_precision_score(truth, scores)),
    }


def mistaken(tiles: Sequence[Tile]) -> list[str]:
    """How many verdicts are wrong, and which: missed defects and false alarms."""
    said = []
    for defective, called, among in ((False, "False alarms", "good"), (True, "Missed", "defective")):
        names = [tile.name for tile in tiles if tile.defective == defective and not tile.right]
        count = sum(tile.defective == defective for tile in tiles)
        said.append(f"{called}: {len(names)} of {count} {among} pictures" + (f": {', '.join(names)}" if names else ""))
    return said


def examples(category: str, tiles: Sequence[Tile], count: int) -> list[Tile]:
    """A flawless image and ``count`` defective ones, of kinds that differ from category to category."""
    good, defective = ([tile for tile in tiles if tile.defective == is_so] for is_so in (False, True))
    first, count = sum(map(ord, category)), min(count, len(defective))
    chosen = [defective[(first + number * len(defective) // count) % len(defective)] for number in range(count)]
    return [good[first % len(good)], *chosen]


def _row(output: Path, tile: Tile) -> PageRow:
    """An image on the page, with a heat map if it is called defective."""
    finding, overlay = tile.finding, Path("overlays", f"{tile.name}.jpg")
    assert finding.path is not None
    if finding.label:
        (output / overlay).parent.mkdir(parents=True, exist_ok=True)
        finding.overlay().save(output / overlay, quality=90)
    return row_of(
        finding,
        tile.name,
        image=relative_to(finding.path, output),
        overlay=overlay.as_posix() if finding.label else None,
        truth=tile.defective,
    )
