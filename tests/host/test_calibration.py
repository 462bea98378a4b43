"""Normal images calibrate a false-alarm rate, in every way to bring them; what cannot is refused."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder, InferenceBatch, MVTecAD
from anomalib.engine import Engine
from anomalib.post_processing import PostProcessor
from conftest import Run, save, shallow
from pictures import surfaces

from anomalib_clipad import ClipAD
from anomalib_clipad.data.reading import read_image
from anomalib_clipad.host.post_processor import ClipADPostProcessor
from anomalib_clipad.verdicts.normal_scores import NormalScores


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return surfaces(tmp_path_factory.mktemp("normal"), 24)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return surfaces(tmp_path_factory.mktemp("fresh"), 4, seed=9, spread=20)


def certified(normal: object, **options: object) -> ClipAD:
    options = {"false_alarm_rate": 0.1, "class_name": "bolt", "visualizer": False, **options}
    return ClipAD(**shallow(), calibration_source=normal, **options)


def outputs(model: ClipAD, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image scores and map maxima, one image at a time."""
    found = [model(read_image(path, as_tensor=True)[None]) for path in sorted(folder.iterdir())]
    return (
        np.array([float(one.pred_score) for one in found]),
        np.array([float(one.anomaly_map.max()) for one in found]),
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"tiles": [1, 2]}, {"few_shot": 3, "text_weight": 0.3}], ids=str)
def test_p_values_are_those_of_the_outputs(
    normal: Path, fresh: Path, tmp_path: Path, engine: Engine, options: dict
) -> None:
    if options.pop("few_shot", None):
        options = {**options, "few_shot_source": surfaces(tmp_path / "references", 3, seed=5)}
    model = certified(normal, **options)
    prediction = torch.cat([batch.p_value for batch in engine.predict(model, data_path=fresh)])
    (scores, peaks), (normal_scores, normal_peaks) = outputs(model, fresh), outputs(model, normal)
    known = NormalScores(normal_scores, normal_peaks)
    expected = known.p_values(scores)
    np.testing.assert_allclose(prediction, expected, atol=1e-6)
    batches = engine.predict(model, data_path=fresh)
    assert [bool(batch.pred_label) for batch in batches] == (expected <= 0.1).tolist()
    regions = [known.region_p_value(peak) <= 0.1 for peak in peaks]
    assert [bool(batch.pred_mask.any()) for batch in batches] == regions


def test_the_rate_moves_without_a_new_calibration(normal: Path, fresh: Path) -> None:
    model = certified(normal)
    image = read_image(fresh / "0.png", as_tensor=True)[None]
    p_value = float(model(image).p_value)
    assert isinstance(model(image), InferenceBatch)
    for rate in (0.9, 0.05):
        model.post_processor.false_alarm_rate = rate
        assert bool(model(image).pred_label) == (p_value <= rate)
    model.post_processor.false_alarm_rate = 0.01
    with pytest.raises(ValueError, match=r"0\.01 takes 99 normal images or more; the model is calibrated on 24"):
        model(image)


def split_of(root: Path, normal: Path, defective: int = 0) -> Folder:
    """A data module whose validation split is half of its test images."""
    shutil.copytree(normal, root / "good")
    layout = {"normal_dir": "good", "normal_test_dir": "good", "num_workers": 0, "seed": 0}
    if defective:
        surfaces(root / "bad", defective, seed=3, spread=40)
        layout["abnormal_dir"] = "bad"
        return Folder("bolt", root=root, val_split_mode="same_as_test", **layout)
    return Folder("bolt", root=root, val_split_mode="from_train", val_split_ratio=0.8, **layout)


@pytest.mark.slow
def test_a_validation_split_of_normal_images_calibrates(
    normal: Path, tmp_path: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    model, data = certified(None), split_of(tmp_path / "data", normal)
    with caplog.at_level(logging.INFO):
        engine.fit(model, datamodule=data)
    count = len(model.post_processor.certificate)
    assert count == len(data.val_data)
    assert f"The validation split of bolt: 10 % false alarms, from {count} images; at most" in caplog.text
    assert "of the scored images" not in caplog.text
    assert model.post_processor.image_min.isnan()  # nothing else is fitted on them


def test_a_validation_split_with_defects_is_refused(normal: Path, tmp_path: Path, engine: Engine) -> None:
    with pytest.raises(ValueError, match=r"holds 3 defective images.*best F1"):
        engine.validate(certified(None), datamodule=split_of(tmp_path / "data", normal, defective=3), verbose=False)


@pytest.mark.slow
def test_a_folder_calibrates_beside_a_labelled_validation_split(
    normal: Path, fresh: Path, datamodule: MVTecAD, engine: Engine
) -> None:
    """Scores are the fitted ones, verdicts those of the rate."""
    model, plain = certified(normal), ClipAD(**shallow(), class_name="bolt", visualizer=False)
    for one in (model, plain):
        engine.validate(one, datamodule=datamodule, verbose=False)
    image = read_image(fresh / "0.png", as_tensor=True)[None]
    assert torch.equal(model(image).pred_score, plain(image).pred_score)
    assert not hasattr(plain(image), "p_value")
    known = NormalScores(*outputs(model, normal))
    assert float(model(image).p_value) == pytest.approx(known.p_value(float(model(image).pred_score)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"text_weight": 0.0}, {"joining": "sum"}, {"joining": "sum", "tiles": [1, 2], "aligned": True}],
    ids=str,
)
def test_references_calibrate_by_leaving_out_one_at_a_time(
    tmp_path: Path, fresh: Path, caplog: pytest.LogCaptureFixture, options: dict
) -> None:
    """As models that remember all others would score them, on the same scale."""
    references = surfaces(tmp_path / "references", 10)
    model = certified(None, few_shot_source=references, **options)
    with caplog.at_level(logging.INFO):
        model.prepare()
    assert "from 10 references, each left out in turn" in caplog.text
    for index, path in enumerate(sorted(references.iterdir())[:3]):
        others = tmp_path / f"others-{index}"
        shutil.copytree(references, others)
        (others / path.name).unlink()
        alone = ClipAD(**shallow(), class_name="bolt", visualizer=False, few_shot_source=others, **options)
        alone.prepare()
        raw = alone.model(alone._pre_process(read_image(path, as_tensor=True)[None]))
        known = model.post_processor.normal
        assert known.image_scores[index] == pytest.approx(float(raw.pred_score[0]), abs=1e-5)
        assert known.region_scores[index] == pytest.approx(float(raw.anomaly_map.max()), abs=1e-5)


@pytest.mark.slow
def test_a_checkpoint_holds_the_calibration(
    normal: Path, fresh: Path, tmp_path: Path, datamodule: MVTecAD, engine: Engine
) -> None:
    shutil.copytree(normal, tmp_path / "normal")
    model = certified(tmp_path / "normal")
    engine.fit(model, datamodule=datamodule)
    shutil.rmtree(tmp_path / "normal")
    image = read_image(fresh / "1.png", as_tensor=True)[None]
    wanted = model(image)
    again = ClipAD.load_from_checkpoint(engine.best_model_path)
    assert again.post_processor.false_alarm_rate == 0.1
    assert torch.equal(again(image).p_value, wanted.p_value)
    assert torch.equal(again(image).pred_mask, wanted.pred_mask)
    bare = ClipAD(**shallow(), visualizer=False, false_alarm_rate=0.5)
    (prediction,) = engine.predict(bare, data_path=fresh / "1.png", ckpt_path=engine.best_model_path)
    assert torch.equal(prediction.p_value, wanted.p_value)
    assert bare.post_processor.false_alarm_rate == 0.5
    other = certified(surfaces(tmp_path / "other", 9))  # images that are given replace those of the checkpoint
    engine.predict(other, data_path=fresh / "1.png", ckpt_path=engine.best_model_path)
    assert len(other.post_processor.certificate) == 9


@pytest.mark.slow
def test_another_class_is_calibrated_anew(normal: Path, fresh: Path) -> None:
    model = certified(normal)
    model.prepare()
    before = model.post_processor.normal.image_scores
    model.class_name = "bottle"
    model.prepare()
    assert not np.array_equal(model.post_processor.normal.image_scores, before)


def test_references_do_not_calibrate_themselves(normal: Path) -> None:
    with pytest.raises(ValueError, match=r"The calibration image .*[/]0\.png is also a reference"):
        certified(normal, few_shot_source=normal, k_shot=3).prepare()


@pytest.mark.slow
def test_references_of_a_checkpoint_do_not_calibrate_it(normal: Path, datamodule: MVTecAD, engine: Engine) -> None:
    model = ClipAD(**shallow(), class_name="bolt", visualizer=False, few_shot_source=normal, k_shot=2)
    engine.fit(model, datamodule=datamodule)
    again = certified(normal)
    with pytest.raises(ValueError, match="is also a reference"):
        engine.predict(again, data_path=normal / "0.png", ckpt_path=engine.best_model_path)


@pytest.mark.slow
def test_scored_calibration_images_are_said(normal: Path, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.predict(certified(normal), data_path=normal)
    assert "24 of the scored images are references or calibration images too" in caplog.text


def test_images_that_stand_apart_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    surfaces(tmp_path / "mixed", 24, lamp=0.1)
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::4, :, 0] = 255
    save(tmp_path / "mixed/defect.png", stripes)
    model = certified(
        tmp_path / "mixed", few_shot_source=surfaces(tmp_path / "references", 3, 5, lamp=0.1), text_weight=0.0
    )
    model.prepare()
    assert "defect.png stand apart" in caplog.text
    assert "0.png" not in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"false_alarm_rate": 1.5}, "share between 0 and 1.*got 1.5"),
        ({"false_alarm_rate": 0.0}, "share between 0 and 1"),
        ({"false_alarm_rate": None}, "pass false_alarm_rate too"),
        ({"mutual": True}, "depend on the other images of its run"),
        ({"post_processor": PostProcessor()}, "those of ClipADPostProcessor"),
    ],
)
def test_what_makes_no_guarantee_is_refused(normal: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        certified(normal, **options)


@pytest.mark.slow
def test_missing_images_are_refused(normal: Path, tmp_path: Path, engine: Engine, image: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder 'absent'"):
        certified("absent")
    with pytest.raises(ValueError, match="takes normal images to calibrate on, and there are none"):
        engine.predict(certified(None), data_path=image)
    few = surfaces(tmp_path / "few", 5)
    with pytest.raises(ValueError, match="takes 9 normal images or more; the model is calibrated on 5"):
        certified(few).prepare()
    with pytest.raises(ValueError, match="with memory_size new images are compared with some"):
        certified("references", few_shot_source=normal, memory_size=20).prepare()


def test_sensitivities_are_accepted_by_the_post_processor() -> None:
    """As a pending change of anomalib passes them."""
    raw = InferenceBatch(torch.tensor([0.2]), None, torch.zeros(1, 2, 2))
    processor = ClipADPostProcessor()
    assert not processor(raw, 0.5, 0.5).pred_label
    assert processor(raw, 0.9, 0.4).pred_label
    assert not processor(raw, 0.9, 0.4).pred_mask.any()
    assert processor(raw, pixel_sensitivity=0.6).pred_mask.all()


@pytest.mark.slow
def test_the_command_line_takes_a_rate_and_a_folder(
    run_anomalib: Run, normal: Path, fresh: Path, tmp_path: Path
) -> None:
    backbone = [f"--model.{name}={value}" for name, value in shallow().items()]
    options = ["--model.class_name", "bolt", "--model.false_alarm_rate", 0.1, "--model.calibration_source", normal]
    common = ["--data", fresh, "--default_root_dir", tmp_path / "results", "--model.visualizer", "false"]
    result = run_anomalib("predict", "--model", "ClipAD", *backbone, *options, *common)
    assert "10 % false alarms, from 24 images" in " ".join((result.stdout + result.stderr).split())
