"""What a run needs is taken once, restored from checkpoints, and taken anew where something else asks for it."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pictures import noise, noises, write

from anomalib_clipad import ClipADModel
from anomalib_clipad.backbones import Backbone
from anomalib_clipad.host import preparation
from anomalib_clipad.host.calibration import CalibrationSource
from anomalib_clipad.host.post_processor import ClipADPostProcessor
from anomalib_clipad.host.preparation import Preparation
from anomalib_clipad.host.references import References
from anomalib_clipad.images.picture import read
from anomalib_clipad.predictor.building import Resized
from anomalib_clipad.predictor.live import LivePredictor
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.vision.matrix_resize import Standardize

Make = Callable[..., Preparation]


@pytest.fixture
def make(backbone: Backbone) -> Make:
    """Preparations of the tiny CLIP for bottles."""

    def make(calibration: CalibrationSource | None = None, rate: float | None = None, **references: Any) -> Preparation:
        model = ClipADModel(backbone)
        model.setup("bottle")
        transform = Resized(model.input_size, Standardize(backbone.mean, backbone.std))
        predictor = LivePredictor(model, transform, ClipADPostProcessor(rate))
        return Preparation(predictor, References(**references), calibration or CalibrationSource())

    return make


def data_of(root: str) -> Any:
    """A datamodule by what tells its images from others'."""
    return SimpleNamespace(root=root, category="bottle")


# References


def test_memory_size_reaches_the_memory(make: Make, tmp_path: Path) -> None:
    run = make(source=write(tmp_path / "normal", *noises(2)), memory_size=6)
    run.remember(None)
    assert run.predictor.model.detector.memory.tokens.shape == (4, 6, 64)


def test_references_are_taken_once_for_each_data_module(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def images(_: References, data: Any) -> tuple[list[str], Any]:
        taken.append(data.root)
        return [data.root], iter([read(noise(len(taken)))])

    monkeypatch.setattr(preparation, "reference_images", images)
    run = make(k_shot=1)
    for root in ("a", "a", "b", "b", "a"):
        run.remember(data_of(root))
    run.remember(None)
    assert taken == ["a", "b", "a"]


def test_the_default_name_takes_no_class_away(make: Make) -> None:
    run = make()
    run.encode("object", "default", validating=False)
    assert run.predictor.class_name == "bottle"
    run.encode("cable", "given", validating=False)
    assert run.predictor.class_name == "cable"


def test_other_tiles_need_other_references_than_a_checkpoints(make: Make, tmp_path: Path) -> None:
    run = make(source=write(tmp_path / "normal", *noises(2)))
    run.remember(None)
    state = run.state()
    run.forget_references()
    assert run.predictor.model.detector.memory is None
    run.remember(None)
    run.restore(state, {})
    with pytest.raises(ValueError, match="The memory of the checkpoint was filled with other tiles"):
        run.forget_references()


# Calibration


def test_other_data_calibrates_anew(make: Make, tmp_path: Path) -> None:
    run = make(rate=0.3, source=write(tmp_path / "normal", *noises(3)))
    run.remember(data_of("a"))
    run.certify(data_of("a"))
    own = run.predictor.processor.normal
    for data in (data_of("a"), None):
        run.certify(data)
        assert run.predictor.processor.normal is own
    run.certify(data_of("b"))
    assert run.predictor.processor.normal is not own


def test_a_rate_that_moved_below_what_the_images_allow_is_refused(make: Make, tmp_path: Path) -> None:
    run = make(CalibrationSource(write(tmp_path / "normal", *noises(9))), rate=0.1)
    run.certify(None)
    assert run.files == [str(tmp_path / f"normal/{seed}.png") for seed in range(9)]
    run.predictor.processor.false_alarm_rate = 0.05
    with pytest.raises(ValueError, match="takes 19 normal images or more; the model is calibrated on 9"):
        run.certify(None)


# Checkpoints


def restored(make: Make, state: dict, old: dict | None = None, **options: Any) -> Preparation:
    """Another run's preparation, whose model has the memory of the checkpoint already."""
    run = make(**options)
    filled = make()
    filled.predictor.fit([filled.predictor.show(read(noise(0)), "0.png", reference=True)])
    run.predictor.model.detector.memory = filled.predictor.model.detector.memory
    run.restore(state, old or {})
    return run


def state_of(make: Make, tmp_path: Path) -> dict[str, Any]:
    run = make(
        CalibrationSource(write(tmp_path / "normal", *noises(4, first=5))), 0.3, source=write(tmp_path / "r", noise(0))
    )
    run.remember(None)
    run.certify(None)
    return run.state()


def test_a_checkpoint_takes_its_references_again_for_other_words(make: Make, tmp_path: Path) -> None:
    """It knows what the text of before says of them, and not their images."""
    given = {"source": write(tmp_path / "normal", *noises(4))}
    known = make(**given)
    known.remember(None)
    runs = [make(**given), make(**given), make()]
    for run in runs[1:]:
        run.predictor.model.detector.memory = known.predictor.model.detector.memory
        run.restore(known.state(), {})
    for run in runs[:2]:
        run.encode("cable", "given", False)
        run.remember(None)
    images = [runs[0].predictor.prepare(read(noise(9)))]
    expected, found = (run.predictor.score(images) for run in runs[:2])
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-6)
    with pytest.raises(ValueError, match="by the spread of what it says of them, and their images are not at hand"):
        runs[2].encode("cable", "given", False)


def test_a_checkpoint_brings_references_scale_and_calibration(make: Make, tmp_path: Path) -> None:
    state = state_of(make, tmp_path)
    (same := tmp_path / "same").mkdir()
    shutil.copy(state["reference_identities"][0]["name"], same)
    run = restored(make, state, source=same)
    run.remember(None)  # there is no other image to take
    assert [Path(one.name).name for one in run.predictor.references] == ["0.png"]
    assert len(run.predictor.processor.normal) == 4
    assert [Path(file).name for file in run.files] == [f"{index}.png" for index in range(4)]
    served = run.predictor.processor.scale
    assert float(served.midpoint) == float(run.predictor.model.detector.scale.midpoint)


def test_other_calibration_images_take_the_place_of_a_checkpoints(make: Make, tmp_path: Path) -> None:
    state = state_of(make, tmp_path)
    run = restored(make, state, calibration=CalibrationSource(tmp_path / "r"))
    assert run.predictor.processor.normal is None
    assert run.files == []


def test_a_calibration_of_another_number_format_is_refused(make: Make, tmp_path: Path) -> None:
    state = state_of(make, tmp_path)
    state["normal"] = NormalScores(np.ones(4), np.ones(4), 0.3, computed_in="bfloat16").to_json()
    with pytest.raises(ValueError, match="calibrated on scores computed in bfloat16, and this model computes in float"):
        restored(make, state)


@pytest.mark.parametrize("left_out", [False, True])
def test_scores_of_version_0_2_are_restored(make: Make, left_out: bool) -> None:
    state = {"references": {"mutual": False, "pool": 7}, "calibration": {"left_out": left_out, "files": ["a.png"]}}
    run = restored(make, state, {"score": torch.tensor([0.1, 0.2]), "peak": torch.tensor([0.3, 0.4])})
    normal = run.predictor.processor.normal
    assert normal.image_scores.tolist() == pytest.approx([0.1, 0.2])
    assert normal.region_scores.tolist() == pytest.approx([0.3, 0.4])
    assert (normal.left_out, run.files, run.references.pool) == (left_out, ["a.png"], 7)


# During a run


def test_scored_images_that_are_known_are_said_once_the_run_ends(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make(
        CalibrationSource(write(tmp_path / "normal", *noises(3, first=1))), 0.3, source=write(tmp_path / "r", noise(0))
    )
    run.remember(None)
    run.certify(None)
    files = [
        *map(str, write(tmp_path / "scored", noise(0), noise(1), noise(5)).iterdir()),
        str(tmp_path / "absent.png"),
    ]
    for calibrated, count in ((True, 2), (False, 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            run.notice(files, calibrated)
            run.finish()
        assert f"{count} of the scored images are references or calibration images too" in caplog.text
        assert "scored/0.png is, or looks like, " + str(tmp_path / "r/0.png") in caplog.text
    caplog.clear()
    run.finish()
    assert not caplog.records


def test_a_pool_ends_with_its_run(make: Make) -> None:
    run = make(mutual=True)
    predictor = run.predictor
    predictor.gather([[predictor.prepare(read(noise(seed))) for seed in range(3)]])
    run.finish()
    assert predictor.model.pool is None
