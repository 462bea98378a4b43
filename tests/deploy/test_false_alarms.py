"""The promise, kept: over fresh normal pictures the rate holds, live, exported and compressed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import Folder
from anomalib.deploy import CompressionType
from conftest import save, shallow
from scipy.stats import betabinom

from anomalib_clipad import ClipAD
from anomalib_clipad.lab.bench.thresholds import Scores, false_alarms, part, promises, score
from anomalib_clipad.predictor.runtimes import load
from anomalib_clipad.verdicts.conformal import allowed
from anomalib_clipad.verdicts.drift import Drift

RATE, CALIBRATION, FRESH = 0.1, 29, 60
SEEDS = (0, 1, 2)


def pictures(seed: int, start: int, count: int) -> list[np.ndarray]:
    return [part("wood", start + index, seed=seed, size=64) for index in range(count)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[ClipAD]:
    """One for each seed, with calibration pictures of its own."""
    found = []
    for seed in SEEDS:
        folder = tmp_path_factory.mktemp("calibration")
        for index, picture in enumerate(pictures(seed, 0, CALIBRATION)):
            save(folder / f"{index:02}.png", picture)
        model = ClipAD(
            **shallow(), class_name="bolt", visualizer=False, false_alarm_rate=RATE, calibration_source=folder
        )
        model.prepare()
        found.append(model)
    return found


@pytest.fixture(scope="module")
def fresh() -> list[np.ndarray]:
    """Pixels (60, 3, 64, 64) of normal pictures for each seed."""
    return [np.stack(pictures(seed, 500, FRESH)).transpose(0, 3, 1, 2).astype(np.float32) / 255 for seed in SEEDS]


def check(flagged: list[Any]) -> None:
    """The number of false alarms of each seed is beta-binomial: its own calibration, 60 pictures; all in its bounds."""
    rank = allowed(RATE, CALIBRATION)
    for kind in ("images", "regions"):
        counts = [one[kind] for one in flagged]
        low, high = betabinom.ppf([0.0005, 0.9995], FRESH, rank, CALIBRATION + 1 - rank)
        assert all(low <= count <= high for count in counts), (kind, counts)


def count(found: dict[str, Any]) -> dict[str, int]:
    labels, masks = np.asarray(found["pred_label"]), np.asarray(found["pred_mask"])
    return {"images": int(labels.sum()), "regions": int(masks.any(axis=(1, 2)).sum())}


@pytest.mark.slow
def test_the_rate_holds_live(models: list[ClipAD], fresh: list[np.ndarray]) -> None:
    flagged = []
    for model, images in zip(models, fresh, strict=True):
        found = model(torch.from_numpy(images))
        flagged.append(count({"pred_label": found.pred_label, "pred_mask": found.pred_mask}))
    check(flagged)
    assert sum(one["images"] + one["regions"] for one in flagged) > 0


@pytest.mark.slow
def test_the_rate_is_exact_over_many_splits(models: list[ClipAD], fresh: list[np.ndarray]) -> None:
    """Of one pool, calibrated again and again: floor(rate * (n + 1)) / (n + 1), for images and regions."""
    for model, images in zip(models, fresh, strict=True):
        found = model(torch.from_numpy(images))
        scores = Scores(found.pred_score.numpy(), found.anomaly_map.amax((1, 2)).numpy())
        for share in false_alarms(scores, scores, 29, RATE):
            assert share == pytest.approx(0.1, abs=0.012)  # three standard errors of 200 splits


def data_of(model: ClipAD) -> Folder:
    """Pictures for the quantisers of int8: the calibration pictures."""
    root = Path(model.preparation.files[0]).parent
    return Folder("wood", root=root, normal_dir=".", val_split_mode="from_train", test_split_mode="none", num_workers=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    [
        lambda model, folder: model.to_torch(folder),
        lambda model, folder: model.to_onnx(folder),
        lambda model, folder: model.to_openvino(folder),
        lambda model, folder: model.to_openvino(folder, compression_type=CompressionType.INT8),
        lambda model, folder: model.to_openvino(folder, compression_type=CompressionType.FP16),
        lambda model, folder: model.to_openvino(folder, "model", None, CompressionType.INT8_PTQ, data_of(model)),
    ],
    ids=["torch", "onnx", "openvino", "int8 weights", "fp16", "int8 calibrated"],
)
def test_the_rate_holds_in_files(
    models: list[ClipAD],
    fresh: list[np.ndarray],
    tmp_path: Path,
    write: Callable[[ClipAD, Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calibrated on the pictures of the first seed; the other seeds' pictures come from the same place."""
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    runtime = load(write(models[0], tmp_path), "f32")
    flagged = [count(runtime.run(images)) for images in fresh]
    check(flagged)
    assert len(runtime.normal) == CALIBRATION


def test_a_carried_over_threshold_breaks_the_rate_and_an_own_one_does_not() -> None:
    """Scores that a compressed file moves by a little more than their spread, as int8 does (docs/thresholds.md)."""
    rng = np.random.default_rng(0)
    exact = rng.normal(0.3, 0.02, 300).astype(np.float32)
    moved = (exact + 0.02 + rng.normal(0, 0.005, 300)).astype(np.float32)
    before, after = Scores(exact, exact), Scores(moved, moved)
    assert max(false_alarms(before, after, 100)) > 0.15
    assert max(false_alarms(after, after, 100)) < 0.06


@pytest.mark.slow
def test_drift_of_lamp_and_focus_is_seen() -> None:
    """Of a tiny model, whose scores follow the light; and not while nothing changes."""
    model = ClipAD(**shallow(), class_name="bolt", visualizer=False)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = model(torch.from_numpy(images))
        return {"pred_score": found.pred_score.numpy(), "anomaly_map": found.anomaly_map.numpy()}

    normal = score(run, pictures(0, 0, 160)).image
    changing = score(run, [part("wood", 500 + i, i / 300, size=64) for i in range(300)]).image
    steady = Drift(normal[:60])
    assert not steady.extend(normal[60:].tolist())
    drift = Drift(normal)
    assert drift.extend(changing.tolist())
    assert drift.alarmed_at is not None
    assert drift.alarmed_at > 5


def test_the_table_of_promises() -> None:
    table = " ".join(promises().split())
    assert "| 20 | 4.8% | 13.9% |" in table
    assert "| 200 | 0.5% | 7.7% |" in table
