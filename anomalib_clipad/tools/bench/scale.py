"""How throughput grows with workers on a cluster of this machine.

``python -m anomalib_clipad.tools.bench.scale``; the extra ``scale`` has to be installed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from jsonargparse import CLI
from PIL import Image

from anomalib_clipad.inspection.inspector import Inspector, files_in
from anomalib_clipad.inspection.sources import find
from anomalib_clipad.parts.samples import named_sample
from anomalib_clipad.scale.cluster import cluster
from anomalib_clipad.scale.luggage import Luggage
from anomalib_clipad.scale.rows import RESULTS
from anomalib_clipad.scale.run import Cluster, Fit, inspect_on_cluster

_CATEGORY, _DIFFERENT = "bracket", 32


class Throughput(NamedTuple):
    """What a number of workers do.

    Attributes:
        images_per_second: When all run.
        start: Seconds until they do, and to end.
        bytes_per_image: Of the results.
    """

    images_per_second: float
    start: float
    bytes_per_image: float


def scale(images: int = 600, workers: list[int] | None = None, side: int = 512, block: int = 25) -> None:
    """Print how many images a second one process and some workers inspect, with clipad-mini.

    Args:
        images: How many; a run with a quarter of them tells what the start takes.
        workers: Numbers of workers to compare.
        side: Height and width of the images in pixels.
        block: Images that are written together.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _draw(folder / "few", images // 4, side)
        _draw(folder / "many", images, side)
        inspector = Inspector(_CATEGORY, backbone="clipad-mini", workers=1)
        print(f"one process, one thread: {_alone(inspector, folder / 'few'):.1f} images a second")
        for count in workers or [1, 2]:
            with cluster(workers=count):
                print(f"{count} workers: " + describe(measure(folder, inspector, count, block)))


def measure(folder: Path, inspector: Inspector, workers: int, block: int) -> Throughput:
    """Inspect ``few`` and ``many`` images of a folder on a cluster."""
    seconds, counts = [], []
    for name in ("few", "many"):
        output = folder / f"{name}-{workers}"
        begin = perf_counter()
        summary = inspect_on_cluster(
            Luggage.of(inspector), Fit(), find([str(folder / name)]), output, {}, Cluster(workers=workers, block=block)
        )
        seconds.append(perf_counter() - begin)
        counts.append(summary.images)
    rate = (counts[1] - counts[0]) / (seconds[1] - seconds[0])
    written = sum(path.stat().st_size for path in (output / RESULTS).iterdir())
    return Throughput(rate, seconds[1] - counts[1] / rate, written / counts[1])


def describe(found: Throughput) -> str:
    """In a line."""
    rate, start, size = found
    return f"{rate:.1f} images a second, {start:.1f} s to start and end, {size:.0f} bytes of results an image"


def _alone(inspector: Inspector, images: Path) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        begin = perf_counter()
        count = sum(1 for _ in inspector.stream(files_in(images)))
        return count / (perf_counter() - begin)
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


if __name__ == "__main__":
    CLI(scale)
