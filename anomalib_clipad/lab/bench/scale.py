"""How throughput grows with workers on a cluster of this machine.

``python -m anomalib_clipad.lab scale``; the extra ``scale`` has to be installed.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from threading import Thread
from time import perf_counter, process_time, sleep, time
from typing import NamedTuple

import torch
from PIL import Image

from anomalib_clipad.images.listing import files_in
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.records import RECORDS
from anomalib_clipad.inspection.sources import find
from anomalib_clipad.parts.samples import named_sample
from anomalib_clipad.scale.cluster import cluster
from anomalib_clipad.scale.run import Cluster, inspect_on_cluster
from anomalib_clipad.tools.tables import Row, markdown_table

_CATEGORY, _DIFFERENT = "bracket", 32
_COLUMNS = (
    ("who", ""),
    ("images a second", ".1f"),
    ("ms of a CPU an image", ".0f"),
    ("seconds to start", ".0f"),
    ("bytes of results an image", ".0f"),
)


class Throughput(NamedTuple):
    """What a number of workers do.

    Attributes:
        images_per_second: Between the first block that is written and the last.
        start: Seconds until the first block is written, its own images but for.
        bytes_per_image: Of the results.
    """

    images_per_second: float
    start: float
    bytes_per_image: float


def scale(images: int = 400, workers: list[int] | None = None, side: int = 512, block: int = 25) -> None:
    """Print how many images a second one process and some workers inspect, with clipad-mini.

    Args:
        images: How many.
        workers: Numbers of workers to compare.
        side: Height and width of the images in pixels.
        block: Images that are written together.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _draw(folder / "images", images, side)
        inspector = Inspector(_CATEGORY, backbone="clipad-mini", workers=1)
        rate, busy = _alone(inspector, folder / "images")
        rows: list[Row] = [["one process, one thread", rate, 1000 * busy, math.nan, math.nan]]
        for count in workers or [1, 2]:
            with cluster(workers=count):
                per_second, start, size = measure(folder, inspector, count, block)
                rows.append([f"{count} worker{'s' if count > 1 else ''}", per_second, math.nan, start, size])
    print(markdown_table(_COLUMNS, rows))


def measure(folder: Path, inspector: Inspector, workers: int, block: int) -> Throughput:
    """Inspect the images of a folder on a cluster."""
    output = folder / f"results-{workers}"
    begin, record, first = time(), output / RECORDS, list[float]()

    def wait() -> None:
        while not (record.exists() and record.stat().st_size):
            sleep(0.01)
        first.append(time())

    waiting = Thread(target=wait, daemon=True)
    waiting.start()
    who = Cluster(workers=workers, block=block)
    summary, _ = inspect_on_cluster(lambda _: inspector, find([str(folder / "images")]), output, {}, who)
    waiting.join()
    rate = (summary.images - block) / (record.stat().st_mtime - first[0])
    return Throughput(rate, first[0] - begin - block * workers / rate, record.stat().st_size / summary.images)


def _alone(inspector: Inspector, images: Path) -> tuple[float, float]:
    """Images a second, and seconds of a CPU an image, which do not depend on what else the machine does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        begin, busy = perf_counter(), process_time()
        count = sum(1 for _ in inspector.stream(files_in(images)))
        return count / (perf_counter() - begin), (process_time() - busy) / count
    finally:
        torch.set_num_threads(threads)


def _draw(folder: Path, images: int, side: int) -> None:
    """JPEG files, some dozens of them different."""
    folder.mkdir()
    for number in range(images):
        if number < _DIFFERENT:
            Image.fromarray(named_sample(_CATEGORY, "test", number, None, 0, side).image).save(folder / f"{number}.jpg")
        else:
            (folder / f"{number}.jpg").hardlink_to(folder / f"{number % _DIFFERENT}.jpg")
