"""Three verdicts in exported files: those of Python in every format, calibrated on the file's own scores, verified."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from anomalib.deploy import CompressionType, OpenVINOInferencer
from conftest import shallow
from pictures import surfaces
from PIL import Image

from anomalib_clipad import ClipAD, Inspector
from anomalib_clipad.deploy import certify
from anomalib_clipad.deploy.verification import Record
from anomalib_clipad.predictor.runtimes import CALIBRATION, load
from anomalib_clipad.verdicts.defect_scores import VERDICTS
from anomalib_clipad.verdicts.normal_scores import NormalScores

pytestmark = pytest.mark.slow
RATES = {"false_alarm_rate": 0.1, "miss_rate": 0.2}


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("images")
    shape = (64, 72)
    return {
        "normal": surfaces(root / "normal", 20, lamp=25, shape=shape),
        "bad": surfaces(root / "bad", 12, seed=3, spread=40, lamp=25, shape=shape),
        "fresh": surfaces(root / "fresh", 12, seed=9, spread=14, lamp=25, shape=shape),
    }


@pytest.fixture(scope="module")
def model(folders: dict[str, Path]) -> ClipAD:
    given = {"calibration_source": folders["normal"], "defect_source": folders["bad"]}
    return ClipAD(**shallow(), class_name="bolt", visualizer=False, **RATES, **given)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), np.float32).transpose(2, 0, 1)[None] / 255


@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
def test_verdicts_are_those_of_python_and_the_rate_moves_them(
    model: ClipAD, folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    written = getattr(model, f"to_{kind}")(tmp_path)
    runtime = load(written, "f32" if kind == "openvino" else None)
    images = [pixels(path) for path in sorted(folders["fresh"].iterdir())]
    for rate in (None, 0.6):
        model.post_processor.false_alarm_rate = 0.1 if rate is None else rate
        expected = [int(model(torch.from_numpy(image)).verdict) for image in images]
        found = [runtime.run(image, rate) for image in images]
        assert [int(one["verdict"][0]) for one in found] == expected
        assert len(set(expected)) > 1
        labels = [bool(model(torch.from_numpy(image)).pred_label) for image in images]
        assert [bool(one["pred_label"][0]) for one in found] == labels
    model.post_processor.false_alarm_rate = 0.1
    batch = runtime.run(np.concatenate(images))["verdict"]
    expected = [int(model(torch.from_numpy(image)).verdict) for image in images]
    assert batch.tolist() == expected
    inspector = Inspector(model=written)
    assert [VERDICTS.index(finding.verdict) for finding in inspector.inspect(folders["fresh"])] == expected
    assert "20 % of defects called good, from 12 known ones" in inspector.decision.text
    normal = runtime.normal
    assert normal is not None
    record = Record.from_metadata(runtime.metadata)
    assert record.compare(runtime.run, normal).within(record)
    if kind == "openvino":
        inferencer = OpenVINOInferencer(written, config={"INFERENCE_PRECISION_HINT": "f32"})
        assert int(inferencer.model({inferencer.input_blob.any_name: images[0]})["verdict"][0]) == expected[0]


def test_a_file_of_two_verdicts_has_no_third_output(folders: dict[str, Path], tmp_path: Path) -> None:
    two = ClipAD(
        **shallow(), class_name="bolt", visualizer=False, false_alarm_rate=0.1, calibration_source=folders["normal"]
    )
    runtime = load(two.to_onnx(tmp_path))
    assert "verdict" not in runtime.run(pixels(folders["fresh"] / "0.png"))
    assert "defects" not in runtime.metadata[CALIBRATION]


def test_a_file_whose_verdicts_do_not_follow_is_out_of_tolerance(
    model: ClipAD, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its known defects were changed, and where its graph compares with others than it says."""
    written = model.to_onnx(tmp_path)
    proto = onnx.load(written)
    data = {entry.key: entry.value for entry in proto.metadata_props}
    changed = data[CALIBRATION].replace('"miss_rate": 0.2', '"miss_rate": 0.5')
    assert changed != data[CALIBRATION]
    onnx.helper.set_model_props(proto, {**data, CALIBRATION: changed})
    onnx.save(proto, tmp_path / "changed.onnx")
    other = load(tmp_path / "changed.onnx")
    record = Record.from_metadata(other.metadata)
    assert "are not those it was written with" in record.compare(other.run, other.normal).fault
    plain = certify.verdict_model

    def wrong(normal: NormalScores, path: Path) -> onnx.ModelProto:
        defects = replace(normal.defects, image_scores=normal.defects.image_scores - 1)
        return plain(replace(normal, defects=defects), path)

    monkeypatch.setattr(certify, "verdict_model", wrong)
    runtime = load(model.to_onnx(tmp_path / "wrong"))
    record = Record.from_metadata(runtime.metadata)
    fault = record.compare(runtime.run, runtime.normal).fault
    assert "do not follow from the calibration scores" in fault


def test_a_compressed_file_compares_with_its_own_scores(
    model: ClipAD, folders: dict[str, Path], tmp_path: Path
) -> None:
    """And is refused where the known defects are gone."""
    runtime = load(model.to_openvino(tmp_path, compression_type=CompressionType.INT8), "f32")
    defects = runtime.normal.defects
    live = model.post_processor.normal_scores().defects
    assert defects.rate == 0.2
    assert not np.array_equal(defects.image_scores, live.image_scores)
    own = [float(runtime.run(pixels(path))["pred_score"][0]) for path in sorted(folders["bad"].iterdir())]
    assert sorted(defects.image_scores.tolist()) == pytest.approx(sorted(own), abs=1e-6)
    for name in ("normal", "bad"):
        shutil.copytree(folders[name], tmp_path / name)
    given = {"calibration_source": tmp_path / "normal", "defect_source": tmp_path / "bad"}
    gone = ClipAD(**shallow(), class_name="bolt", visualizer=False, **RATES, **given)
    gone.prepare()
    shutil.rmtree(tmp_path / "bad")
    with pytest.raises(ValueError, match="defect_source if there are known defects"):
        gone.to_openvino(tmp_path, compression_type=CompressionType.INT8)
    kept = load(gone.to_onnx(tmp_path / "float")).normal
    np.testing.assert_array_equal(kept.defects.image_scores, gone.post_processor.normal_scores().defects.image_scores)
