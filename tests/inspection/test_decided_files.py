"""A file decides where its model was fitted or calibrated, and only sorts where nothing was."""

from pathlib import Path

import numpy as np
import pytest
from conftest import save, shallow

from anomalib_clipad import ClipAD, Inspector
from anomalib_clipad.predictor.decision import STATISTICS

MODEL = {**shallow(), "class_name": "nut", "visualizer": False}
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")


@pytest.mark.parametrize(
    ("fitted", "words"),
    [(False, "not calibrated: sorted by suspicion"), (True, "threshold 0.5, fitted to validation images")],
)
def test_a_file_says_whether_its_model_was_fitted(tmp_path: Path, fitted: bool, words: str) -> None:
    model = ClipAD(**MODEL)
    model.prepare()
    for name in STATISTICS if fitted else ():
        value = {"min": 0.0, "max": 1.0, "threshold": 0.4}[name.rpartition("_")[2]]
        getattr(model.post_processor, f"_{name}" if name.endswith("threshold") else name).fill_(value)
    own = Inspector(model=model.to_torch(tmp_path))
    finding = own.inspect(IMAGE)
    assert (finding.decided, finding.text_score, finding.reference_score) == (fitted, None, None)
    assert words in own.decision.text


def test_a_file_says_what_it_is_calibrated_on(tmp_path: Path) -> None:
    for seed in range(9):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 80, 3), np.uint8)
        save(tmp_path / f"normal/{seed}.png", pixels)
    path = ClipAD(**MODEL, false_alarm_rate=0.2, calibration_source=tmp_path / "normal").to_torch(tmp_path)
    own = Inspector(model=path)
    assert own.inspect(IMAGE[::-1]).decided
    assert own.decision.text == "20 % false alarms, from 9 images; at most 42.9 % with 95 % confidence"
