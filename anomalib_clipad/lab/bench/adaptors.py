"""`python -m anomalib_clipad.lab adaptors`: what trained layers bring and what they cost, on generated parts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from math import nan
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple, cast

import torch
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import seed_everything
from rich.console import Console

from anomalib_clipad import ClipAD
from anomalib_clipad.adaptors.losses import total
from anomalib_clipad.checks import check_counts
from anomalib_clipad.data import Auxiliary, GeneratedParts
from anomalib_clipad.lab.evaluation import quiet_engine
from anomalib_clipad.lab.figures.measured import shipped_weights
from anomalib_clipad.metrics import METRICS, Metrics
from anomalib_clipad.parts.categories import HELD_OUT_CATEGORIES, TRAINING_CATEGORIES
from anomalib_clipad.storage import atomic_folder
from anomalib_clipad.tools.tables import Row, markdown_table
from anomalib_clipad.training.adapter_training import ADAPTER_FILE, AdapterTraining
from anomalib_clipad.training.feature_cache import CacheKind

from .shots import by_category, compared
from .timing import interleaved


class Way(NamedTuple):
    """A model of the study.

    Attributes:
        title: What it is called in a table.
        options: Of ``ClipAD``.
        epochs: Of its training; 0 where there is nothing to train.
    """

    title: str
    options: Mapping[str, Any]
    epochs: int = 0


Outcome = dict[str, Metrics]
"""The metrics of a variant by category."""
WAYS = {
    "sdp": Way("SDP", {}),
    "sdp_block": Way("SDP, tap `block`", {"tap": "block"}),
    "sdp_plus": Way("SDP+", {"variant": "sdp_plus"}, 10),
    "sdp_plus_block": Way("SDP+, tap `block`", {"variant": "sdp_plus", "tap": "block"}, 10),
    "af_clip": Way("AF-CLIP", {"variant": "af_clip"}, 2),
    "aa_clip": Way("AA-CLIP", {"variant": "aa_clip"}, 5),
}
"""All of them by name, with as many epochs as a study of half an hour has time for."""
_TIMED = ("sdp", "sdp_plus", "af_clip", "aa_clip")
"""Those whose speed is measured; a tap does not change it."""
_PICTURES: dict[str, Any] = {"good_images": 14, "defective_images": 14, "train_images": 1}
"""Of each category that is trained on."""
_MINI: dict[str, Any] = {"backbone": "clipad-mini", "visualizer": False}
_BATCH = 8


def main(
    seeds: Sequence[int] = (0, 1, 2), folder: Path = Path("build/adaptors"), repeats: int = 5, threads: int = 1
) -> None:
    """Train each variant on the categories that validate clipad-mini, and compare them on the six held-out ones.

    What is finished for these weights and this version is kept in the folder, layers and metrics, and not done again.

    Args:
        seeds: Of layers and order; each is a training.
        folder: Where layers and metrics are kept.
        repeats: How often each speed is measured.
        threads: CPU threads.
    """
    check_counts(seeds=len(seeds), repeats=repeats, threads=threads)
    torch.set_num_threads(threads)
    found: dict[str, list[Outcome]] = {way.title: [] for way in WAYS.values()}
    with Console(stderr=True).status("Training and comparing layers"):
        for seed in seeds:
            for name, way in WAYS.items():
                if way.epochs or seed == seeds[0]:  # where nothing is trained, all are the same
                    found[way.title].append(outcome(folder, name, seed))
        speeds = list(_speeds(repeats))
    rows: list[Row] = [[title, *(_told(runs, metric) for metric in METRICS)] for title, runs in found.items()]
    print(markdown_table([("mean of the six", ""), *((metric, "") for metric in METRICS)], rows))
    columns = ("ms per image", "trained images/s", "with features kept, images/s")
    print("\n" + markdown_table([("clipad-mini", ""), *((name, ".1f") for name in columns)], speeds))
    print("\n" + by_category(_by_category(found), ("image_AUROC", "pixel_PRO")))


def outcome(folder: Path, name: str, seed: int) -> Outcome:
    """The metrics of a variant on each held-out category, after a training with a seed.

    Args:
        folder: Where they are kept, and the layers.
        name: Of ``WAYS``.
        seed: Of layers and order.
    """
    title = f"{name}-{seed}-{shipped_weights()}-{version('anomalib-clipad')}"
    kept, way = folder / f"{title}.json", WAYS[name]
    if kept.exists():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    options = dict(way.options)
    if way.epochs:
        layers = folder / f"{title}.safetensors"
        if not layers.exists():
            train(layers, way, seed)
        options["adapter"] = str(layers)
    found = {
        category: compared({name: options}, GeneratedParts(category=category, eval_batch_size=16))[name]
        for category in HELD_OUT_CATEGORIES
    }
    with atomic_folder(folder) as unfinished:
        (unfinished / kept.name).write_text(json.dumps(found), encoding="utf-8")
    return found


def train(layers: Path, way: Way, seed: int) -> None:
    """Train a variant, and write its layers to a file."""
    seed_everything(seed, verbose=False)
    model = ClipAD(epochs=way.epochs, feature_cache="memory", **_MINI, **way.options)
    with atomic_folder(layers.parent) as unfinished, tempfile.TemporaryDirectory() as folder:
        with quiet_engine(default_root_dir=folder, enable_model_summary=False) as engine:
            engine.fit(model=model, datamodule=_training_data(seed))
        (written,) = Path(folder).rglob(ADAPTER_FILE.name)
        (unfinished / layers.name).write_bytes(written.read_bytes())


def _training_data(seed: int = 0) -> Auxiliary:
    target = GeneratedParts(category="gear", train_images=1, val_split_mode="none")  # nothing to wait for
    return Auxiliary(GeneratedParts(**_PICTURES), target, [*TRAINING_CATEGORIES], shuffle=True, seed=seed)


def _told(runs: Sequence[Outcome], metric: str) -> str:
    """A metric's mean over categories, and over seeds with its standard deviation."""
    means = [mean(row[metric] for row in run.values()) for run in runs]
    return f"{mean(means):.3f}" + (f" ± {stdev(means):.3f}" if len(means) > 1 else "")


def _by_category(found: Mapping[str, Sequence[Outcome]]) -> dict[str, dict[str, Metrics]]:
    """Means over seeds."""
    return {
        category: {
            title: {metric: mean(run[category][metric] for run in runs) for metric in METRICS}
            for title, runs in found.items()
        }
        for category in HELD_OUT_CATEGORIES
    }


def _speeds(repeats: int) -> Iterator[Row]:
    """Milliseconds to score an image, and how many are trained on in a second, without and with kept features."""
    models = {name: ClipAD("gear", **_MINI, **WAYS[name].options) for name in _TIMED}
    images = torch.rand(_BATCH, 3, *models["sdp"].model.input_size)
    for one in models.values():
        one.model.setup("gear")
    runs = {name: partial(one.model, images) for name, one in models.items()}
    seconds = interleaved(runs, repeats)
    data = _training_data()
    data.setup()
    for name, one in models.items():
        speeds = list(_training_speeds(one, data, repeats)) or [(nan, nan)]
        for stage, speed in enumerate(speeds, start=1):
            title = WAYS[name].title + (f", stage {stage}" if len(speeds) > 1 else "")
            yield [title, 1000 * seconds[name] / _BATCH if stage == 1 else nan, *speed]


def _training_speeds(module: ClipAD, data: Auxiliary, repeats: int) -> Iterator[tuple[float, float]]:
    """Images that are trained on in a second, without and with kept features, in each stage; files are read before."""
    adapter, over = module.model.adapter, 0
    if adapter is None:
        return
    kinds: tuple[CacheKind, ...] = ("none", "memory")
    trainings = {kind: AdapterTraining(module.model, data, kind) for kind in kinds}
    transform: Any = cast("PreProcessor", module.pre_processor).transform
    for number, stage in enumerate(adapter.course):
        data.train_batch_size = stage.batch_size
        batch: Any = next(iter(data.train_dataloader()))
        batch.image, batch.gt_mask = transform(batch.image, batch.gt_mask)

        def step(training: AdapterTraining, batch: Any = batch, epoch: int = over) -> None:
            total(training.losses(batch, epoch)).backward()

        seconds = interleaved({kind: partial(step, training) for kind, training in trainings.items()}, repeats)
        kept = stage.batch_size / seconds["memory"] if adapter.keeps(number) else nan
        yield stage.batch_size / seconds["none"], kept
        over += stage.epochs
