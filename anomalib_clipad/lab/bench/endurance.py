"""`python -m anomalib_clipad.lab endurance`: thousands of images, whole and damaged, through `inspect`."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anomalib_clipad.inspection.lines import whole_rows
from anomalib_clipad.inspection.records import read_results
from anomalib_clipad.parts.noise import Rng
from anomalib_clipad.parts.samples import named_sample
from anomalib_clipad.tools.tables import markdown_table

_SIDE = 256
_DIFFERENT, _SMALL = 16, 32
_GREY = """
from anomalib_clipad.inspection import inspector
from anomalib_clipad.lab.fuzz.stand_in import Grey
from anomalib_clipad.tools.cli import main
inspector._predictor = lambda class_name, *_: Grey(class_name)
main()
"""
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")
_SUFFIXES = (".png", ".jpg", ".bmp", ".tif", ".webp", ".gif", ".jp2", ".pgm")


class Outcome(NamedTuple):
    """What became of the files.

    Attributes:
        results: Rows of results.csv.
        failed: Rows of failed.csv.
        status: Exit status.
        traceback: Whether there was one.
        incomplete: Pictures that no longer open, and temporary files that were left.
        doubled: Images that are in the record more than once.
        megabytes: Peak memory of the process.
    """

    results: int
    failed: int
    status: int
    traceback: bool
    incomplete: int
    doubled: int
    megabytes: float


def endure(
    folder: Path, whole: int, damaged: int, seed: int = 0, options: tuple[str, ...] = (), grey: bool = False
) -> Outcome:
    """Write images and damaged files, and inspect them in a process of its own.

    Args:
        folder: Empty folder for both.
        whole: How many images.
        damaged: How many damaged files: truncated, with flipped bits, of another format than they say, text, empty.
        seed: Of the damage.
        options: Further arguments of `anomalib-clipad inspect`.
        grey: Whether the mean grey stands in for a model, and images are small, so that many take little time.
    """
    images, output = folder / "images", folder / "results"
    images.mkdir()
    side = _SMALL if grey else _SIDE
    pictures = [Image.fromarray(named_sample("gear", "endurance", i, None, 0, side).image) for i in range(_DIFFERENT)]
    for number in range(whole):
        picture, place = pictures[number % _DIFFERENT], images / f"{number // 1000:03d}"
        place.mkdir(exist_ok=True)
        picture.save(place / f"{number:05d}.jpg")
    for number in range(damaged):
        rng = np.random.default_rng([seed, number])
        path = images / f"damaged-{number:05d}{_SUFFIXES[rng.integers(len(_SUFFIXES))]}"
        path.write_bytes(_damaged(pictures[number % _DIFFERENT].resize((48, 40)), rng))
    command = ["inspect", str(images), "--class-name", "gear", "--backbone", "clipad-mini", "--output", str(output)]
    program = _GREY if grey else "from anomalib_clipad.tools.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", program, *command, *options], capture_output=True, text=True, check=False
    )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    counts = [sum(1 for _ in whole_rows(output / name)) - 1 for name in ("results.csv", "failed.csv")]
    incomplete = sum(not _is_complete(path) for path in output.rglob("*") if path.is_file())
    doubled = counts[0] - len({hash(result.path) for result in read_results(output)})
    traceback = "Traceback" in run.stderr + run.stdout
    return Outcome(counts[0], counts[1], run.returncode, traceback, incomplete, doubled, peak)


def _damaged(picture: Image.Image, rng: Rng) -> bytes:
    kinds: list[Callable[[bytes, Rng], bytes]] = [_truncated, _flipped, _relabelled, _text, _empty]
    file = io.BytesIO()
    picture.save(file, _FORMATS[rng.integers(len(_FORMATS))])
    return kinds[rng.integers(len(kinds))](file.getvalue(), rng)


def _truncated(content: bytes, rng: Rng) -> bytes:
    return content[: rng.integers(1, len(content))]


def _flipped(content: bytes, rng: Rng) -> bytes:
    flipped = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(len(flipped), size=rng.integers(1, 40))
    flipped[places] ^= np.uint8(1) << rng.integers(8, size=len(places), dtype=np.uint8)
    return flipped.tobytes()


def _relabelled(content: bytes, rng: Rng) -> bytes:
    del rng
    return content  # the suffix is chosen without the format


def _text(content: bytes, rng: Rng) -> bytes:
    return rng.integers(32, 127, size=len(content) % 500 + 1, dtype=np.uint8).tobytes()


def _empty(content: bytes, rng: Rng) -> bytes:
    del content, rng
    return b""


def _is_complete(path: Path) -> bool:
    if path.suffix not in {".png", ".jpg", ".webp"}:
        return not path.name.startswith(".unfinished")
    try:
        with Image.open(path) as picture:
            picture.load()
    except OSError:
        return False
    return True


def main(whole: int = 1_000, damaged: int = 1_000, seed: int = 0, grey: bool = False) -> None:
    """Print what became of many images and many damaged files, with clipad-mini.

    Args:
        whole: How many images.
        damaged: How many damaged files.
        seed: Of the damage.
        grey: Let the mean grey stand in for the model, which leaves what is around it.
    """
    with tempfile.TemporaryDirectory() as name:
        outcome = endure(Path(name), whole, damaged, seed, grey=grey)
    print(outcome_table(whole, damaged, outcome))


def outcome_table(whole: int, damaged: int, outcome: Outcome) -> str:
    """What became of them, as a Markdown table."""
    counts = {
        "images": whole,
        "damaged files": damaged,
        "rows of `results.csv`": outcome.results,
        "images with several rows": outcome.doubled,
        "rows of `failed.csv`": outcome.failed,
        "tracebacks": int(outcome.traceback),
        "pictures half written, temporary files left": outcome.incomplete,
        "peak memory of the process, MB": outcome.megabytes,
    }
    return markdown_table([("what", ""), ("number", ",.0f")], list(counts.items()))
