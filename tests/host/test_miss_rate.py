"""Known defects give the engine a third verdict: in predictions, in checkpoints; what cannot be is refused."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from conftest import shallow
from pictures import surfaces

from anomalib_clipad import ClipAD, Inspector
from anomalib_clipad.data.reading import read_image
from anomalib_clipad.verdicts.defect_scores import VERDICTS, DefectScores
from anomalib_clipad.verdicts.normal_scores import NormalScores

RATES = {"false_alarm_rate": 0.1, "miss_rate": 0.2}


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return surfaces(tmp_path_factory.mktemp("normal"), 20, lamp=25)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return surfaces(tmp_path_factory.mktemp("bad"), 12, seed=3, spread=40, lamp=25)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return surfaces(tmp_path_factory.mktemp("fresh"), 12, seed=9, spread=14, lamp=25)


def certified(normal: object, bad: object, **options: object) -> ClipAD:
    options = {**RATES, "class_name": "bolt", "visualizer": False, **options}
    return ClipAD(**shallow(), calibration_source=normal, defect_source=bad, **options)


def outputs(model: ClipAD, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image scores and map maxima, one image at a time."""
    found = [model(read_image(path, as_tensor=True)[None]) for path in sorted(folder.iterdir())]
    return (
        np.array([float(one.pred_score) for one in found]),
        np.array([float(one.anomaly_map.max()) for one in found]),
    )


def test_predictions_have_the_verdict_of_the_definition_and_of_the_inspector(
    normal: Path, bad: Path, fresh: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    model = certified(normal, bad)
    predicted = {Path(batch.image_path[0]): batch for batch in engine.predict(model, data_path=fresh)}
    assert "10 % false alarms, from 20 images" in caplog.text
    assert "20 % of defects called good, from 12 known ones" in caplog.text
    plain = ClipAD(**shallow(), class_name="bolt", visualizer=False)
    known = NormalScores(*outputs(plain, normal), 0.1, defects=DefectScores(*outputs(plain, bad), 0.2))
    expected = known.judge(outputs(plain, fresh)[0]).tolist()
    assert len(set(expected)) == 3
    assert [int(predicted[path].verdict) for path in sorted(fresh.iterdir())] == expected
    two = {Path(b.image_path[0]): b for b in engine.predict(certified(normal, None, miss_rate=None), data_path=fresh)}
    assert all(bool(two[path].pred_label) == bool(one.pred_label) for path, one in predicted.items())
    assert not hasattr(next(iter(two.values())), "verdict")
    inspector = Inspector("bolt", **shallow(), calibration=normal, defects=bad, **RATES)
    assert [VERDICTS.index(finding.verdict) for finding in inspector.inspect(fresh)] == expected


def test_the_false_alarm_rate_moves_and_the_verdict_follows(normal: Path, bad: Path, fresh: Path) -> None:
    model = certified(normal, bad)
    images = [read_image(path, as_tensor=True)[None] for path in sorted(fresh.iterdir())]
    before = [int(model(image).verdict) for image in images]
    model.post_processor.false_alarm_rate = 0.7
    after = [int(model(image).verdict) for image in images]
    assert sum(after) > sum(before)
    assert all(now >= then for now, then in zip(after, before, strict=True))


@pytest.mark.slow
def test_thresholds_that_were_fitted_change_no_verdict(
    normal: Path, bad: Path, fresh: Path, datamodule: MVTecAD, engine: Engine
) -> None:
    """Known defects come on the scale of the outputs, as normal images do."""
    model = certified(normal, bad)
    engine.validate(model, datamodule=datamodule, verbose=False)
    assert model.post_processor.normal.defects is not None
    fitted = NormalScores(*outputs(model, normal), 0.1, defects=DefectScores(*outputs(model, bad), 0.2))
    found = [int(model(read_image(path, as_tensor=True)[None]).verdict) for path in sorted(fresh.iterdir())]
    assert found == fitted.judge(outputs(model, fresh)[0]).tolist()
    own = model.post_processor.normal_scores().defects
    np.testing.assert_allclose(own.image_scores, fitted.defects.image_scores, atol=1e-5)


@pytest.mark.slow
def test_a_checkpoint_holds_the_known_defects(
    normal: Path, bad: Path, fresh: Path, tmp_path: Path, datamodule: MVTecAD, engine: Engine
) -> None:
    shutil.copytree(normal, tmp_path / "normal")
    shutil.copytree(bad, tmp_path / "bad")
    model = certified(tmp_path / "normal", tmp_path / "bad")
    engine.fit(model, datamodule=datamodule)
    for folder in ("normal", "bad"):
        shutil.rmtree(tmp_path / folder)
    images = [read_image(path, as_tensor=True)[None] for path in sorted(fresh.iterdir())]
    wanted = [int(model(image).verdict) for image in images]
    path = engine.best_model_path
    again = ClipAD.load_from_checkpoint(path)
    assert [int(again(image).verdict) for image in images] == wanted
    inspector = Inspector(model=path)
    assert [VERDICTS.index(finding.verdict) for finding in inspector.inspect(fresh)] == wanted
    assert "20 % of defects called good, from 12 known ones" in inspector.decision.text
    loose = Inspector(model=path, miss_rate=0.6, false_alarm_rate=0.1)
    looser = [VERDICTS.index(finding.verdict) for finding in loose.inspect(fresh)]
    assert sum(looser) < sum(wanted)
    asked = ClipAD(**shallow(), visualizer=False, miss_rate=0.6)
    engine.predict(asked, data_path=fresh, ckpt_path=path)
    assert [int(asked(image).verdict) for image in images] == looser
    others = surfaces(tmp_path / "others", 5, seed=4, spread=40)
    other = ClipAD(**shallow(), visualizer=False, **RATES, defect_source=others)
    engine.predict(other, data_path=fresh, ckpt_path=path)
    assert len(other.post_processor.normal.defects) == 5
    with pytest.raises(ValueError, match="Pass defect_source with calibration_source, or neither"):
        engine.predict(certified(normal, None, miss_rate=None), data_path=fresh, ckpt_path=path)


def test_another_class_is_calibrated_anew_on_defects_too(
    normal: Path, bad: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = certified(normal, bad)
    model.prepare()
    before = model.post_processor.normal.defects.image_scores
    model.class_name = "bottle"
    model.prepare()
    assert "calibration, known defects of before" in caplog.text
    assert not np.array_equal(model.post_processor.normal.defects.image_scores, before)


def test_scored_defects_are_said(normal: Path, bad: Path, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        engine.predict(certified(normal, bad), data_path=bad)
    assert "12 of the scored images are references or calibration images too, or known defects" in caplog.text


def test_what_cannot_be_is_refused(normal: Path, bad: Path, tmp_path: Path) -> None:
    for options, error, message in (
        ({"miss_rate": 1.5}, ValueError, "miss_rate has to be a share"),
        ({"miss_rate": None}, ValueError, "pass miss_rate and false_alarm_rate with it"),
        ({"false_alarm_rate": None, "calibration_source": None}, ValueError, "pass miss_rate and false_alarm_rate"),
        ({"defect_source": tmp_path / "absent"}, FileNotFoundError, "There is no '.*absent'"),
    ):
        given = {"calibration_source": normal, "defect_source": bad, **RATES, **options}
        with pytest.raises(error, match=message):
            ClipAD(**shallow(), class_name="bolt", visualizer=False, **given)
    (tmp_path / "ticks.csv").write_text("path,score,truth\n0.png,0.9,defective\n")
    for source, message in (
        (tmp_path / "ticks.csv", "top of a sorted list void it"),
        (surfaces(tmp_path / "few", 3, seed=5), r"0\.2 takes 4 known defects or more; there are 3"),
        (normal / "0.png", r"known defect .*0\.png is also a calibration image"),
        (None, "miss_rate takes known defects: pass defect_source"),
    ):
        with pytest.raises(ValueError, match=message):
            certified(normal, source).prepare()
    with pytest.raises(ValueError, match="second of two rates; pass false_alarm_rate too"):
        ClipAD(**shallow(), class_name="bolt", visualizer=False, miss_rate=0.1)(torch.rand(1, 3, 64, 64))
