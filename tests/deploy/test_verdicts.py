"""Exported verdicts: the same numbers everywhere, a rate that moves, calibration of the written file, verification."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.deploy import CompressionType, OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine
from conftest import save, shallow
from pictures import surfaces
from PIL import Image

from anomalib_clipad import ClipAD
from anomalib_clipad.deploy import verification
from anomalib_clipad.deploy.certify import measure
from anomalib_clipad.deploy.verification import Record, inputs_of
from anomalib_clipad.predictor.runtimes import CALIBRATION, RATE, Runtime, load
from anomalib_clipad.tools.verify import verify

EXAMPLE = Path(__file__).parents[2] / "docs/examples/onnx_verify.py"
PREDICT = Path(__file__).parents[2] / "docs/examples/onnx_predict.py"
RATES = (0.05, 0.2, 0.6)


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return surfaces(tmp_path_factory.mktemp("normal"), 24, lamp=25, shape=(64, 72))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return surfaces(tmp_path_factory.mktemp("fresh"), 6, seed=9, spread=14, lamp=25, shape=(64, 72))


@pytest.fixture(scope="module")
def model(normal: Path) -> ClipAD:
    return certified(normal)


def certified(source: object, **options: object) -> ClipAD:
    options = {"class_name": "bolt", "false_alarm_rate": 0.2, "visualizer": False, **options}
    return ClipAD(**shallow(), calibration_source=source, **options)


@pytest.fixture(scope="module")
def torch_file(model: ClipAD, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.to_torch(tmp_path_factory.mktemp("torch"))


@pytest.fixture(scope="module")
def onnx_file(model: ClipAD, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.to_onnx(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def openvino_file(model: ClipAD, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.to_openvino(tmp_path_factory.mktemp("openvino"))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), np.float32).transpose(2, 0, 1)[None] / 255


def check_rates(model: ClipAD, runtime: Runtime, fresh: Path) -> None:
    """The same number means the same as in Python, and none is the file's own; scores of neighbours may swap."""
    labels = set()
    for path in sorted(fresh.iterdir()):
        image = pixels(path)
        for rate in (*RATES, None):
            model.post_processor.false_alarm_rate = 0.2 if rate is None else rate
            wanted, found = model(torch.from_numpy(image)), runtime.run(image, rate)
            assert found["p_value"] == pytest.approx(wanted.p_value.numpy(), abs=1e-6), path.name
            assert bool(found["pred_label"][0]) == bool(wanted.pred_label[0]), (path.name, rate)
            different = int((found["pred_mask"] != wanted.pred_mask.numpy()).sum())
            assert different <= 0.01 * wanted.pred_mask.numel(), (path.name, rate)
            labels.add((rate, bool(found["pred_label"][0])))
    model.post_processor.false_alarm_rate = 0.2
    assert {label for _, label in labels} == {True, False}
    images = [pixels(path) for path in sorted(fresh.iterdir())]
    marked = [sum(int(runtime.run(image, rate)["pred_mask"].sum()) for image in images) for rate in RATES]
    assert marked == sorted(marked)
    assert marked[0] < marked[-1]


@pytest.mark.slow
def test_a_rate_means_the_same_in_torch(model: ClipAD, torch_file: Path, fresh: Path) -> None:
    check_rates(model, load(torch_file), fresh)
    found = TorchInferencer(torch_file, device="cpu").predict(fresh / "0.png")
    assert bool(found.pred_label) == bool(model(torch.from_numpy(pixels(fresh / "0.png"))).pred_label)


@pytest.mark.slow
def test_a_rate_means_the_same_in_onnxruntime(model: ClipAD, onnx_file: Path, fresh: Path) -> None:
    check_rates(model, load(onnx_file), fresh)
    session = onnxruntime.InferenceSession(onnx_file)  # a caller that knows nothing of rates
    assert [entry.name for entry in session.get_inputs()] == ["input"]
    assert [entry.name for entry in session.get_outputs()][-1] == "p_value"
    plain = session.run(["pred_label", "p_value"], {"input": pixels(fresh / "0.png")})
    assert bool(plain[0][0]) == (plain[1][0] <= 0.2 + 1e-6)
    batch = np.concatenate([pixels(path) for path in sorted(fresh.iterdir())])
    alone = [session.run(["p_value"], {"input": image[None]})[0][0] for image in batch]
    np.testing.assert_allclose(session.run(["p_value"], {"input": batch})[0], alone)
    printed = subprocess.run(
        [sys.executable, PREDICT, onnx_file, fresh / "0.png", "0.99"], capture_output=True, text=True, check=True
    )
    assert f"(p-value {plain[1][0]:.3f}), defective" in printed.stdout
    assert not printed.stderr
    refused = subprocess.run([sys.executable, PREDICT, onnx_file, fresh / "0.png", "0.01"], capture_output=True)
    assert refused.returncode == 1
    assert b"0.01 is none that 24 calibration images allow" in refused.stderr


@pytest.mark.slow
def test_a_rate_means_the_same_in_openvino(model: ClipAD, openvino_file: Path, fresh: Path) -> None:
    check_rates(model, load(openvino_file, "f32"), fresh)
    inferencer = OpenVINOInferencer(openvino_file, config={"INFERENCE_PRECISION_HINT": "f32"})
    image = fresh / "0.png"
    found = inferencer.model({inferencer.input_blob.any_name: pixels(image)})
    assert float(found["p_value"][0]) == pytest.approx(float(model(torch.from_numpy(pixels(image))).p_value))


def test_old_inferencers_take_certified_outputs(model: ClipAD) -> None:
    """A tuple of anomalib's four fields, whatever hangs on it."""
    assert list(model.deployed()(torch.rand(1, 3, 64, 64))._asdict()) == [
        "pred_score",
        "pred_label",
        "anomaly_map",
        "pred_mask",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("compression", [CompressionType.INT8, CompressionType.FP16])
def test_a_compressed_file_is_calibrated_itself(
    model: ClipAD, normal: Path, tmp_path: Path, compression: CompressionType
) -> None:
    path = model.to_openvino(tmp_path, compression_type=compression)
    runtime = load(path, "f32")
    known = runtime.normal
    assert (known.rate, known.left_out) == (0.2, False)
    found = [runtime.run(pixels(image)) for image in sorted(normal.iterdir())]
    scores = [float(one["pred_score"][0]) for one in found]
    np.testing.assert_allclose(known.image_scores, scores, atol=2e-6)
    peaks = [float(one["anomaly_map"].max()) for one in found]
    np.testing.assert_allclose(known.region_scores, peaks, atol=2e-6)
    own = model.post_processor.certificate.normal
    if compression is CompressionType.INT8:
        assert np.abs(known.image_scores - own.image_scores).max() > 1e-4
    # the file's own calibration images have ranks 1 to 24 among themselves, and each counts itself
    ranks = sorted(round(float(one["p_value"][0]) * 25) for one in found)
    assert ranks == list(range(2, 26))
    assert sum(bool(one["pred_label"][0]) for one in found) == 4
    assert verified(path, "f32") == 0


@pytest.mark.slow
def test_a_bfloat16_model_is_calibrated_in_bfloat16(normal: Path, tmp_path: Path) -> None:
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    runtime = load(certified(normal, precision="bfloat16").to_openvino(tmp_path))
    assert runtime.precision == "bfloat16"
    scores = [float(runtime.run(pixels(one))["pred_score"][0]) for one in sorted(normal.iterdir())]
    np.testing.assert_allclose(runtime.normal.image_scores, scores, atol=1e-6)
    assert verified(tmp_path / "weights/openvino/model.xml") == 0


@pytest.mark.slow
def test_what_cannot_be_calibrated_is_refused_and_leaves_nothing(normal: Path, tmp_path: Path) -> None:
    left_out = certified("references", few_shot_source=normal)
    path = left_out.to_torch(tmp_path / "float32")
    assert load(path).normal.left_out
    with pytest.raises(ValueError, match="to be calibrated itself"):
        certified("references", few_shot_source=normal, precision="bfloat16").to_torch(tmp_path / "bfloat16")
    moved = surfaces(tmp_path / "moved", 24, lamp=25, shape=(64, 72))
    model = certified(moved, precision="bfloat16")
    model.prepare()
    shutil.rmtree(moved)
    with pytest.raises(ValueError, match="calibration images are not at hand"):
        model.to_torch(tmp_path / "bfloat16")
    assert not [file for file in (tmp_path / "bfloat16").rglob("*") if file.is_file()]


@pytest.mark.slow
def test_a_checkpoint_exports_with_or_without_its_images(
    tmp_path: Path, datamodule: MVTecAD, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    moved = surfaces(tmp_path / "normal", 24, lamp=25, shape=(64, 72))
    model = certified(moved)
    engine.fit(model, datamodule=datamodule)
    wanted = load(model.to_torch(tmp_path / "live")).normal
    for name in ("with", "without"):
        again = ClipAD.load_from_checkpoint(engine.best_model_path)
        found = load(again.to_torch(tmp_path / name)).normal
        np.testing.assert_allclose(found.image_scores, wanted.image_scores, atol=1e-6, rtol=0)
        np.testing.assert_allclose(found.region_scores, wanted.region_scores, atol=1e-6, rtol=0)
        assert (found.rate, found.left_out) == (wanted.rate, wanted.left_out)
        assert ("not at hand" in caplog.text) == (name == "without")
        shutil.rmtree(moved, ignore_errors=True)


@pytest.mark.slow
def test_the_file_of_a_bfloat16_model_is_calibrated_itself(normal: Path, tmp_path: Path) -> None:
    model = certified(normal, precision="bfloat16")
    runtime = load(model.to_torch(tmp_path))
    scores = [float(runtime.run(pixels(one))["pred_score"][0]) for one in sorted(normal.iterdir())]
    np.testing.assert_allclose(runtime.normal.image_scores, scores, atol=1e-6)
    live = model.post_processor.certificate.normal.image_scores
    assert np.abs(runtime.normal.image_scores - live).max() > 1e-4


@pytest.mark.slow
def test_a_file_for_one_size_says_which_calibration_image_it_does_not_take(
    normal: Path, fresh: Path, tmp_path: Path
) -> None:
    model = certified(normal)
    with pytest.raises(ValueError, match=r"does not take the calibration image .*0\.png of 64x72 pixels"):
        model.to_onnx(tmp_path, input_size=(80, 80))
    assert not list(tmp_path.rglob("*.onnx"))
    path = model.to_onnx(tmp_path, input_size=(64, 72))
    assert verified(path) == 0
    assert load(path).run(pixels(fresh / "0.png"))["p_value"].shape == (1,)


def test_an_image_that_a_runtime_does_not_take_is_named() -> None:
    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        assert not image.any()
        raise RuntimeError

    with pytest.raises(ValueError, match=r"does not take the calibration image one\.png of 4x5 pixels"):
        measure(run, [("one.png", np.zeros((3, 4, 5), np.float32))])


# Verification


def verified(path: Path, precision: str | None = None) -> int:
    """The exit status."""
    try:
        verify(path, precision)
    except SystemExit as end:
        return int(end.code)
    return 0


def test_verify_prints_what_it_finds(torch_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verified(torch_file) == 0
    printed = capsys.readouterr().out
    for words in (
        "torch 2",
        "largest difference of scores   0.0e+00, 1.0e-04 allowed",
        "verdicts that flip             0 of 3",
        "images per second",
        "20 % false alarms, from 24 images",
        "within tolerance",
    ):
        assert words in printed


@pytest.mark.slow
def test_every_export_verifies_itself(model: ClipAD, onnx_file: Path, openvino_file: Path, tmp_path: Path) -> None:
    assert verified(onnx_file) == 0
    assert verified(openvino_file, "f32") == 0
    images = Record.from_metadata(load(onnx_file).metadata).images
    assert sum(map(len, images)) < 100_000
    path = ClipAD(**shallow(), visualizer=False).to_onnx(tmp_path, text_input=True, memory_input=True)
    assert verified(path) == 0
    assert CALIBRATION not in load(path).metadata
    assert example(path).returncode == 0


@pytest.mark.slow
def test_openvino_in_bfloat16_is_out_of_tolerance(openvino_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    assert verified(openvino_file) == 1
    assert "computes in bfloat16 here unless told otherwise" in capsys.readouterr().out


def example(model: Path) -> subprocess.CompletedProcess[str]:
    """docs/examples/onnx_verify.py where nothing but numpy, pillow and onnxruntime can be imported."""
    absent = ("anomalib", "anomalib_clipad", "open_clip", "torch", "scipy")
    program = f"import sys; sys.modules.update(dict.fromkeys({absent})); sys.argv = ['', *sys.argv[1:]]; "
    program += f"exec(open({str(EXAMPLE)!r}).read())"
    return subprocess.run([sys.executable, "-c", program, str(model)], capture_output=True, text=True)


@pytest.mark.slow
def test_the_example_verifies_without_this_package(onnx_file: Path, tmp_path: Path) -> None:
    result = example(onnx_file)
    assert result.returncode == 0, result.stderr
    assert "0 of 3 verdicts flip" in result.stdout
    assert example(tampered(onnx_file, tmp_path / "a.onnx", scores=[0.9, 0.1, 0.2])).returncode == 1
    assert example(tampered(onnx_file, tmp_path / "b.onnx")).returncode == 2
    (tmp_path / "c.onnx").write_bytes(onnx_file.read_bytes()[:5000])
    assert example(tmp_path / "c.onnx").returncode == 2


def tampered(path: Path, target: Path, **changes: object) -> Path:
    """A copy with another record; without changes, with none."""
    model = onnx.load(path)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    text = properties.pop(verification.KEY)
    if changes:
        properties[verification.KEY] = json.dumps({**json.loads(text), **changes})
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, target)
    return target


def edited(path: Path, target: Path, rate: float | None = None, **changes: object) -> Path:
    """A copy whose graph has another rate, or whose metadata has another calibration."""
    model = onnx.load(path)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    properties[CALIBRATION] = json.dumps({**json.loads(properties[CALIBRATION]), **changes})
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, properties)
    for weight in model.graph.initializer:
        if rate is not None and weight.name == RATE:
            weight.CopyFrom(onnx.numpy_helper.from_array(np.array(rate, np.float32), RATE))
    onnx.save(model, target)
    return target


@pytest.mark.slow
def test_edited_verdicts_end_with_status_one(
    onnx_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = [score + 0.1 for score in load(onnx_file).normal.image_scores.tolist()]
    target = tmp_path / "edited.onnx"
    for changes, words in (
        ({"image_scores": scores}, "its calibration scores or its false-alarm rate are not those"),
        ({"false_alarm_rate": 0.3}, "its calibration scores or its false-alarm rate are not those"),
        ({"rate": 0.9}, "its verdicts do not follow from the calibration scores"),
    ):
        assert verified(edited(onnx_file, target, **changes)) == 1, changes
        assert f"OTHER VERDICTS: {words}" in capsys.readouterr().out
    assert verified(edited(onnx_file, target, rate=0.2)) == 0


@pytest.mark.slow
def test_files_that_cannot_be_verified_end_with_status_two(
    onnx_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = tmp_path / "foreign.onnx"
    foreign.write_text("no model")
    cases = {
        tampered(onnx_file, tmp_path / "without.onnx"): "carries no verification data",
        tampered(onnx_file, tmp_path / "undecodable.onnx", images=["aGVsbG8=", "!", ""]): "is damaged",
        foreign: "is damaged, or no exported model",
        tmp_path / "absent.onnx": "There is no file",
        tmp_path / "a.bin": "is no exported model: expected a file that ends with .onnx, .xml, .pt",
    }
    for path, words in cases.items():
        assert verified(path) == 2, path
        assert words in capsys.readouterr().err
    assert verified(tampered(onnx_file, tmp_path / "scores.onnx", scores=[0.9, 0.1, 0.2])) == 1
    assert "OUT OF TOLERANCE" in capsys.readouterr().out


def test_pickles_need_trust(torch_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUST_REMOTE_CODE")
    assert verified(torch_file) == 2


@pytest.mark.slow
def test_a_user_brings_images(normal: Path, tmp_path: Path) -> None:
    save(tmp_path / "mine/large.png", np.random.default_rng(0).integers(0, 255, (900, 1200, 3), np.uint8))
    save(tmp_path / "mine/small.png", np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    path = ClipAD(**shallow(), class_name="bolt", visualizer=False, verify_images=tmp_path / "mine").to_torch(tmp_path)
    record = Record.from_metadata(load(path).metadata)
    assert [one.shape[1] for one in record.pixels()] == [3, 3]
    assert record.pixels()[1].shape == (1, 3, 40, 40)
    assert sum(map(len, record.images)) < 100_000
    assert verified(path) == 0
    (tmp_path / "mine/small.png").write_text("no image")
    with pytest.raises(ValueError, match=r"small\.png, to verify exports with, cannot be read"):
        ClipAD(**shallow(), class_name="bolt", verify_images=tmp_path / "mine").to_torch(tmp_path / "two")
    with pytest.raises(FileNotFoundError, match="no images in"):
        ClipAD(**shallow(), class_name="bolt", verify_images=tmp_path / "two").to_torch(tmp_path / "two")


def test_inputs_are_made_from_their_descriptions() -> None:
    made = inputs_of({"memory": {"shape": [2, 3], "scale": 2.0}, "midpoint": {"value": 1.0}})
    np.testing.assert_allclose(made["memory"], 2 * np.sin(np.arange(6)).reshape(2, 3), atol=1e-7)
    assert made["midpoint"] == 1


def test_a_difference_that_is_no_number_is_out_of_tolerance(torch_file: Path) -> None:
    record = Record.from_metadata(load(torch_file).metadata)

    def broken(images: np.ndarray) -> dict[str, np.ndarray]:
        return {**load(torch_file).run(images), "pred_score": np.array([np.nan], np.float32)}

    assert not record.compare(broken).within(record)


def test_a_rate_that_so_few_images_cannot_give_is_refused(torch_file: Path, model: ClipAD) -> None:
    image = np.zeros((1, 3, 64, 64), np.float32)
    with pytest.raises(ValueError, match=r"0\.01 takes 99 normal images or more; the model is calibrated on 24"):
        load(torch_file).run(image, rate=0.01)
    model.post_processor.false_alarm_rate = 0.01
    try:
        with pytest.raises(ValueError, match=r"0\.01 takes 99 normal images or more"):
            model(torch.from_numpy(image))
    finally:
        model.post_processor.false_alarm_rate = 0.2


@pytest.mark.slow
def test_a_rate_that_so_few_images_cannot_give_is_refused_by_every_runtime(
    onnx_file: Path, openvino_file: Path
) -> None:
    for runtime in (load(onnx_file), load(openvino_file, "f32")):
        with pytest.raises(ValueError, match=r"0\.01 takes 99 normal images or more"):
            runtime.run(np.zeros((1, 3, 64, 64), np.float32), rate=0.01)


def test_a_rate_for_a_file_without_verdicts_is_refused(tmp_path: Path) -> None:
    path = ClipAD(**shallow(), class_name="bolt", visualizer=False).to_torch(tmp_path)
    with pytest.raises(ValueError, match="no verdicts at a false-alarm rate"):
        load(path).run(np.zeros((1, 3, 64, 64), np.float32), rate=0.1)
