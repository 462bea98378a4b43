"""`python -m anomalib_clipad.lab thresholds`: do verdicts keep their rate in every format, and when is drift seen?"""

from __future__ import annotations

import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
from anomalib.data import Folder
from anomalib.deploy import CompressionType
from numpy.typing import NDArray
from PIL import Image

from anomalib_clipad import ClipAD
from anomalib_clipad.checks import check_counts
from anomalib_clipad.parts.categories import CATEGORIES
from anomalib_clipad.parts.render import develop, expose, random_camera
from anomalib_clipad.predictor.runtimes import Arrays, load, run_torch
from anomalib_clipad.tools.evaluation import quiet
from anomalib_clipad.tools.tables import Row, markdown_table
from anomalib_clipad.verdicts.certificate import Certificate
from anomalib_clipad.verdicts.conformal import false_alarms_at_most, smallest_rate
from anomalib_clipad.verdicts.drift import Drift
from anomalib_clipad.verdicts.normal_scores import NormalScores

_SIZE = 160
_RATE = 0.05
_SPLITS = 200
_COUNTS = (20, 50, 100, 200, 500, 1000)


class Scores(NamedTuple):
    """What a model or file says of images: scores (n,) and map maxima (n,)."""

    image: NDArray[np.float32]
    region: NDArray[np.float32]


def thresholds(
    category: str = "gear",
    images: int = 300,
    calibration: int = 100,
    stream: int = 300,
    output: Path = Path("thresholds"),
) -> None:
    """Measure false alarms of calibrated and of carried-over thresholds, and drift; print tables, draw a picture.

    Args:
        category: Generated category.
        images: Normal pictures, which are split into calibration and fresh ones many times.
        calibration: How many of them calibrate, each time.
        stream: Pictures in which lamp and focus change, from the first to the last.
        output: Folder of the picture.

    Raises:
        ValueError: If the category is unknown, a number is below one, or no fresh pictures are left.
    """
    check_counts(images=images, calibration=calibration, stream=stream)
    if category not in CATEGORIES or calibration >= images:
        msg = f"Expected a category of {', '.join(CATEGORIES)} and fewer calibration images than images; got "
        raise ValueError(msg + f"{category}, {calibration} of {images}.")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    print(promises())
    with quiet(), warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        pictures = [part(category, index) for index in range(images)]
        runs = dict(_formats(category, pictures[:calibration], Path(folder)))
        found = {name: score(run, pictures) for name, run in runs.items()}
        changing = [part(category, images + index, index / stream) for index in range(stream)]
        changed = score(runs["torch"], changing)
    columns = [
        ("run", ""),
        *((name, ".3f") for name in ("images, own scores", "regions, own scores", "images, torch's scores")),
    ]
    torch_scores = found["torch"]
    rows: list[Row] = [
        [name, *false_alarms(own, own, calibration), false_alarms(torch_scores, own, calibration)[0]]
        for name, own in found.items()
    ]
    print(f"\nFalse alarms at a rate of {_RATE}, {category}, {calibration} of {images} pictures calibrate:\n")
    print(markdown_table(columns, rows))
    steady, drifting = _watch(torch_scores.image, changed.image, calibration)
    output.mkdir(parents=True, exist_ok=True)
    draw(output / "thresholds.png", torch_scores.image[:calibration], steady, drifting)


def promises(rate: float = _RATE) -> str:
    """The table of what n images can promise."""
    promise = f"a rate of {100 * rate:g} % is at most, with 95 % confidence"
    columns = [("calibration images", ""), ("smallest rate", ".1%"), (promise, ".1%")]
    rows: list[Row] = [[str(n), smallest_rate(n), false_alarms_at_most(rate, n)] for n in _COUNTS]
    return markdown_table(columns, rows)


def part(category: str, index: int, change: float = 0.0, seed: int = 0, size: int = _SIZE) -> NDArray[np.uint8]:
    """A normal picture (size, size, 3) of a category.

    Args:
        category: A name in ``CATEGORIES``.
        index: Number of the picture.
        change: How far lamp and focus are gone: at 1, 30 % less light and 1.5 px (at 240) more blur.
        seed: Seed of the pictures.
        size: Height and width in pixels.
    """
    style_seed = crc32(category.encode())
    style, rng = np.random.default_rng(style_seed), np.random.default_rng([seed, style_seed, index])
    scene = CATEGORIES[category](style, rng, size)
    camera = random_camera(style, rng)
    camera = replace(camera, exposure=camera.exposure * (1 - 0.3 * change), blur=camera.blur + 1.5 * change)
    return develop(expose(scene, camera), camera, np.random.default_rng(int(rng.integers(2**32))))


Run = Callable[[NDArray[np.float32]], Arrays]


def _formats(category: str, pictures: list[NDArray[np.uint8]], folder: Path) -> Iterator[tuple[str, Run]]:
    """Every way to run the model; the pictures serve int8 for its own calibration."""
    for index, picture in enumerate(pictures):
        (folder / "good").mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / f"good/{index:04}.png")
    data = Folder("parts", root=folder, normal_dir="good", val_split_mode="from_train", test_split_mode="none")
    model = ClipAD(backbone="clipad-mini", class_name=category, visualizer=False)
    yield "torch", partial(run_torch, model.deployed())
    live = ClipAD(backbone="clipad-mini", class_name=category, precision="bfloat16", visualizer=False)
    yield "torch, bfloat16", partial(_live, live)
    with redirect_stdout(StringIO()):
        yield "ONNX", load(model.to_onnx(folder / "onnx")).run
        plain = model.to_openvino(folder / "openvino")
        int8 = model.to_openvino(folder / "int8", compression_type=CompressionType.INT8_PTQ, datamodule=data)
        weights = model.to_openvino(folder / "weights", compression_type=CompressionType.INT8)
    yield "OpenVINO", load(plain, "f32").run
    yield "OpenVINO run in bfloat16", load(plain, "bf16").run
    yield "OpenVINO int8 weights", load(weights, "f32").run
    yield "OpenVINO int8 calibrated", load(int8, "f32").run


def _live(model: ClipAD, images: NDArray[np.float32]) -> Arrays:
    with torch.inference_mode():
        found: Any = model(torch.from_numpy(images))
    return {"pred_score": found.pred_score.numpy(), "anomaly_map": found.anomaly_map.numpy()}


def score(run: Run, pictures: list[NDArray[np.uint8]], batch: int = 8) -> Scores:
    """Scores and map maxima of pictures of one size."""
    image, region = [], []
    for start in range(0, len(pictures), batch):
        pixels = np.stack(pictures[start : start + batch]).transpose(0, 3, 1, 2).astype(np.float32) / 255
        found = run(pixels)
        image.append(found["pred_score"])
        region.append(found["anomaly_map"].max(axis=(1, 2)))
    return Scores(np.concatenate(image), np.concatenate(region))


def false_alarms(known: Scores, fresh: Scores, calibration: int, rate: float = _RATE) -> tuple[float, float]:
    """Shares of normal pictures that are called defective, by their scores and by their regions.

    Mean over many splits of the same pictures into calibration and fresh ones.

    Args:
        known: Scores that calibrate.
        fresh: Scores of the same pictures that are judged.
        calibration: How many calibrate.
        rate: The false-alarm rate.
    """
    rng, images, regions = np.random.default_rng(0), [], []
    for _ in range(_SPLITS):
        order = rng.permutation(len(known.image))
        chosen, rest = order[:calibration], order[calibration:]
        certificate = Certificate(NormalScores(known.image[chosen], known.region[chosen]))
        score, peak = (torch.from_numpy(scores[rest]) for scores in fresh)
        verdict = certificate.judge(score, peak[:, None, None], rate)
        images.append(verdict.pred_label.float().mean())
        regions.append(verdict.pred_mask.float().mean())
    return float(torch.stack(images).mean()), float(torch.stack(regions).mean())


def _watch(
    steady: NDArray[np.float32], changing: NDArray[np.float32], calibration: int
) -> tuple[list[float], list[float]]:
    """Evidence along pictures without a change, and along those with one; prints a table of alarms."""
    rng, alarms, fresh = np.random.default_rng(0), 0, len(steady) - calibration
    for _ in range(_SPLITS):
        order = rng.permutation(steady)
        alarms += Drift(order[:calibration], level=0.01).extend(order[calibration:].tolist())
    lines = []
    rows: list[Row] = [[f"none, in {_SPLITS} orders of {fresh}", "1 in 100", alarms, math.nan]]
    for name, scores in {"none": steady[calibration:], "lamp and focus": changing}.items():
        drift, evidence = Drift(steady[:calibration]), []
        for value in scores.tolist():
            drift.update(value)
            evidence.append(drift.evidence)
        rows.append([f"{name}, {len(scores)}", "1 in 1,000", int(drift.alarm), drift.alarmed_at or math.nan])
        lines.append(evidence)
    columns = [("change, pictures", ""), ("level", ""), ("alarms", "d"), ("with picture", ".0f")]
    print("\n" + markdown_table(columns, rows))
    return lines[0], lines[1]


def draw(path: Path, normal: NDArray[np.float32], steady: list[float], drifting: list[float]) -> None:
    """One picture: where a threshold lies among normal scores, and how evidence of a change grows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rank = max(1, int(_RATE * (len(normal) + 1)))
    threshold = np.sort(normal)[-rank]
    left.hist(normal, bins=25, color="tab:blue", alpha=0.7)
    left.axvline(threshold, color="tab:red")
    left.set(xlabel="image score", ylabel="normal images", title=f"{len(normal)} normal images and the 5 % threshold")
    left.annotate(
        "defective", (threshold, 1), xycoords=("data", "axes fraction"), xytext=(4, -14), textcoords="offset points"
    )
    right.semilogy(steady, color="tab:blue", label="nothing changes")
    right.semilogy(drifting, color="tab:orange", label="lamp and focus change slowly")
    right.axhline(1000, color="tab:red", linestyle="--", label="alarm: 1 in 1,000")
    right.set(xlabel="images since the calibration", ylabel="evidence of a change", title="Drift")
    right.legend(loc="upper left")
    figure.savefig(path, dpi=90)
