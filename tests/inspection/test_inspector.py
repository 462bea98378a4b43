"""The inspector: the engine's scores by every way in, one pass through the tower, decisions that move."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from conftest import TINY, shallow
from PIL import Image

from anomalib_clipad import ClipAD
from anomalib_clipad.images.listing import files_in
from anomalib_clipad.images.picture import UnreadableError
from anomalib_clipad.inspection.inspector import Inspector

pytest.importorskip("crepes")
MODEL = shallow()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photographs of two sizes, one of them in a subfolder."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "sub").mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(256, size=(40 + 10 * (number % 2), 50, 3), dtype=np.uint8)
        pixels = cv2.GaussianBlur(pixels, (0, 0), 1 + number)
        Image.fromarray(pixels).save(folder / ("sub" if number == 5 else "") / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def inspector() -> Inspector:
    return Inspector("nut", **MODEL)


@pytest.mark.slow
@pytest.mark.parametrize("text_weight", [0.5, 1.0])
def test_scores_are_the_engines(folder: Path, text_weight: float, engine: Engine) -> None:
    files = files_in(folder)
    source = {} if text_weight == 1 else {"few_shot_source": folder}
    model = ClipAD("nut", **MODEL, text_weight=text_weight, **source, visualizer=False)
    predicted = [item for batch in engine.predict(model, data_path=folder) for item in batch]
    expected = {Path(item.image_path): item for item in predicted}
    normal = {} if text_weight == 1 else {"normal": folder}
    own = Inspector("nut", **MODEL, text_weight=text_weight, **normal)
    for finding in own.inspect(files):
        item = expected[finding.path]
        assert finding.score == pytest.approx(float(item.pred_score), abs=1e-4)
        np.testing.assert_allclose(finding.anomaly_map, item.anomaly_map.squeeze().numpy(), atol=1e-4)
        assert finding.label == bool(item.pred_label)


@pytest.mark.slow
@pytest.mark.parametrize(("text_weight", "pool"), [(0.5, 100), (0.0, 4)])
@pytest.mark.filterwarnings("ignore:mutual compares only")
def test_images_that_judge_each_other_have_the_engines_scores(
    folder: Path, text_weight: float, pool: int, engine: Engine
) -> None:
    model = ClipAD("nut", **MODEL, text_weight=text_weight, mutual=True, pool=pool, visualizer=False)
    expected = {Path(item.image_path): item for batch in engine.predict(model, data_path=folder) for item in batch}
    own = Inspector("nut", **MODEL, text_weight=text_weight, mutual=folder, pool=pool)
    files = files_in(folder)
    for finding in [*own.inspect(files), own.inspect(files[0])]:
        item = expected[finding.path]
        assert finding.score == pytest.approx(float(item.pred_score), abs=1e-4)
        np.testing.assert_allclose(finding.anomaly_map, item.anomaly_map.squeeze().numpy(), atol=1e-4)
    assert own.again(threshold=0.99).label == (own.inspect(files[0]).score > 0.99)
    with pytest.raises(ValueError, match="another threshold alone"):
        own.again("bolt")


@pytest.mark.slow
def test_few_images_that_judge_each_other_are_pointed_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="compares only 2 images"):
        Inspector("nut", **MODEL, mutual=[tmp_path / "damaged.png", *files_in(folder)[:2]])
    with pytest.raises(ValueError, match="1 of 2 can be read"):
        Inspector("nut", **MODEL, mutual=[tmp_path / "damaged.png", files_in(folder)[0]])


def test_every_way_in_gives_the_same_score(folder: Path, inspector: Inspector) -> None:
    path = folder / "0.png"
    pixels = np.asarray(Image.open(path))
    ways = [str(path), Image.open(path), pixels, pixels / 255, torch.from_numpy(pixels.copy()).permute(2, 0, 1)]
    expected = inspector.inspect(path).score
    assert [inspector.inspect(way).score for way in ways] == pytest.approx([expected] * len(ways), abs=1e-5)
    bgr = Inspector("nut", **MODEL, channels="bgr")
    assert bgr.inspect(cv2.imread(str(path))).score == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_a_generator_goes_in_and_one_comes_out(folder: Path) -> None:
    own = Inspector("nut", **MODEL, batch_size=2)
    taken = 0

    def frames() -> object:
        nonlocal taken
        for path in 10 * files_in(folder):
            taken += 1
            yield cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)

    findings = own.inspect(frames())
    first = next(findings)
    assert 2 <= taken < 12, "it reads a little ahead, not all"
    assert first.score == pytest.approx(own.model.score([own.model.prepare(_picture(folder))]).score[0], abs=1e-5)
    assert len([first, *findings]) == 60


@pytest.mark.slow
def test_a_pause_is_no_end(folder: Path) -> None:
    files = files_in(folder)
    own = Inspector("nut", **MODEL, batch_size=4)
    findings = own.inspect(iter([files[0], None, None, files[1], files[2]]))
    assert [finding.path for finding in findings] == files[:3]

    def arriving() -> object:
        yield files[0]
        yield None
        pytest.fail("the first image has to be looked at before the next is waited for")

    assert next(own.inspect(arriving())).path == files[0]


def _picture(folder: Path) -> object:
    from anomalib_clipad.images.picture import read

    return read(files_in(folder)[0])


def test_a_folder_is_looked_through_with_its_subfolders(folder: Path, inspector: Inspector) -> None:
    assert [finding.path for finding in inspector.inspect(folder)] == files_in(folder)
    assert len(files_in(folder)) == 6


def test_another_look_takes_no_second_pass_through_the_tower(folder: Path) -> None:
    own = Inspector("nut", **MODEL)
    image = files_in(folder)[1]
    own.inspect(image)
    assert own.model.passes == 1
    prompts = {"normal": ["fine {}"], "abnormal": ["broken {}"], "templates": ["a photo of a {}."]}
    other = own.again("bolt")
    moved = own.again(threshold=1.0)
    reworded = own.again(prompts=prompts)
    assert own.model.passes == 1
    assert (other.class_name, moved.threshold, moved.label) == ("bolt", 1.0, False)
    fresh = Inspector("bolt", **MODEL).inspect(image)
    assert other.score == pytest.approx(fresh.score, abs=1e-6)
    assert reworded.score == pytest.approx(Inspector("bolt", **MODEL, prompts=prompts).inspect(image).score, abs=1e-6)
    compared = own.again(references=folder)
    assert own.model.passes == 2, "the normal images themselves"
    expected = Inspector("bolt", **MODEL, prompts=prompts, references=folder).inspect(image)
    np.testing.assert_allclose(compared.anomaly_map, expected.anomaly_map, atol=1e-5)


@pytest.mark.slow
def test_a_rate_is_kept_on_the_calibration_images(folder: Path) -> None:
    own = Inspector("nut", **MODEL, calibration=folder, false_alarm_rate=0.3)
    findings = list(own.inspect(folder))
    assert sum(finding.label for finding in findings) <= 0.3 * 7
    ranked = sorted(finding.score for finding in findings)
    for finding in findings:
        at_least = sum(score >= finding.score for score in ranked)
        assert finding.p_value == pytest.approx((1 + at_least) / 7)
        assert finding.label == (finding.p_value <= 0.3)
        assert all(region.p_value <= 0.3 for region in finding.regions)
    own.decide_by(false_alarm_rate=0.15)
    assert sum(finding.label for finding in own.inspect(folder)) <= 1
    with pytest.raises(ValueError, match="takes 99 normal images"):
        own.decide_by(false_alarm_rate=0.01)
    own.decide_by(threshold=1.0)
    moved = own.inspect(files_in(folder)[0])
    assert (moved.label, moved.threshold, moved.p_value) == (False, 1.0, findings[0].p_value)


def test_what_is_ignored_is_never_defective(folder: Path) -> None:
    image = files_in(folder)[0]
    mask = np.zeros((40, 50), np.uint8)
    mask[:, :25] = 255
    own = Inspector("nut", **MODEL, ignore=mask, threshold=0.0)
    finding = own.inspect(image)
    assert not finding.mask[:, :25].any()
    assert finding.mask[:, 25:].any()
    assert finding.score == pytest.approx(finding.map[:, 25:].max())
    with pytest.raises(ValueError, match="different aspects"):
        own.inspect(files_in(folder)[1])


@pytest.mark.slow
def test_a_checkpoint_scores_as_its_model(folder: Path, tmp_path: Path, engine: Engine) -> None:
    model = ClipAD("nut", **MODEL, few_shot_source=folder, visualizer=False)
    engine.predict(model, data_path=folder)
    path = tmp_path / "model.ckpt"
    engine.trainer.save_checkpoint(path)
    image = files_in(folder)[2]
    own = Inspector(model=path)
    expected = Inspector("nut", **MODEL, references=folder).inspect(image).score
    assert own.inspect(image).score == pytest.approx(expected, abs=1e-4)
    assert own.inspect(image).class_name == "nut"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino", "torch"])
def test_an_exported_file_scores_as_its_model(
    folder: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    model = ClipAD("bolt", **MODEL, false_alarm_rate=0.3, calibration_source=folder)
    path = getattr(model, f"to_{kind}")(tmp_path)
    precision = {"precision": "f32"} if kind == "openvino" else {}
    exported = Inspector(model=path, **precision)
    live = Inspector("bolt", **MODEL, calibration=folder, false_alarm_rate=0.3)
    others = [np.asarray(Image.open(path))[::-1] for path in files_in(folder)]
    for of_file, of_model in zip(exported.inspect(others), live.inspect(others), strict=True):
        assert of_file.score == pytest.approx(of_model.score, abs=1e-4)
        assert of_file.p_value == of_model.p_value
        assert of_file.label == of_model.label
    assert exported.inspect(files_in(folder)[0]).class_name == "bolt"
    with pytest.raises(ValueError, match="exported file cannot take"):
        exported.again("nut")
    others = {"onnx": {"torch", "anomalib"}, "torch": {"anomalib", "lightning", "open_clip", "torchvision", "sklearn"}}
    if kind in others:
        program = (
            f"import sys; from anomalib_clipad import Inspector; Inspector(model={str(path)!r})"
            f".inspect({str(files_in(folder)[0])!r}); print(sorted({others[kind]} & set(sys.modules)))"
        )
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]", "an ONNX file needs onnxruntime and numpy alone, a .pt file torch"


def test_importing_it_imports_neither_anomalib_nor_torch() -> None:
    program = (
        "import sys; from anomalib_clipad import Inspector; Inspector.inspect; "
        "print(sorted({'anomalib', 'lightning', 'torch', 'open_clip', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_backbone_by_name_needs_neither_anomalib_nor_lightning(folder: Path) -> None:
    program = (
        "import sys; from anomalib_clipad import Inspector; "
        f"print(Inspector('nut', backbone={TINY['backbone']!r}, pretrained={TINY['pretrained']!r})"
        f".inspect({str(files_in(folder)[0])!r}).label, sorted({{'anomalib', 'lightning'}} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split(maxsplit=1)[1].strip() == "[]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mutual": ["a.png"], "references": ["b.png"], "tiles": [2, 2]}, "with references, tiles"),
        ({"mutual": ["a.png"], "pool": 1}, "2 or more; got 1"),
        ({"threshold": 1.5}, "in \\[0, 1\\]"),
        ({"threshold": 0.4, "false_alarm_rate": 0.1}, "pass one of them"),
        ({"false_alarm_rate": 0.1}, "pass calibration"),
        ({"channels": "gbr"}, "channels"),
        ({"references": "nowhere"}, "nowhere"),
    ],
)
def test_bad_arguments_say_what_to_pass(options: dict, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Inspector("nut", **MODEL, **options)


@pytest.mark.slow
def test_an_image_is_either_normal_or_for_calibration(folder: Path) -> None:
    with pytest.raises(ValueError, match="is also a reference"):
        Inspector("nut", **MODEL, references=folder, calibration=folder, false_alarm_rate=0.3)


def test_a_damaged_image_ends_a_stream_unless_someone_listens(
    folder: Path, tmp_path: Path, inspector: Inspector
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    files = [files_in(folder)[0], broken, files_in(folder)[1]]
    with pytest.raises(UnreadableError, match="broken"):
        list(inspector.inspect(files))
    failed: list[object] = []
    found = list(inspector.stream(files, lambda source, error: failed.append((source, str(error)))))
    assert [finding.path for finding in found] == [files[0], files[2]]
    assert failed[0][0] == broken
