"""Exported models: they predict what the engine predicts, in every runtime, from images of any size."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from anomalib.data import Folder, MVTecAD
from anomalib.deploy import CompressionType, OpenVINOInferencer, TorchInferencer
from conftest import GOLDEN, HAZELNUT, TINY, make_engine, save, shallow
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from anomalib_clipad import ClipAD
from anomalib_clipad.data.reading import read_image
from anomalib_clipad.deploy.exporter import _delivering
from anomalib_clipad.parts.samples import named_sample
from anomalib_clipad.predictor.runtimes import OnnxRuntime, OpenVinoRuntime, TorchRuntime
from anomalib_clipad.tools.text_features import text_features

OUTPUTS = ["pred_score", "pred_label", "anomaly_map", "pred_mask"]
SIZES = [(64, 64), (96, 96), (33, 50), (150, 70), (300, 400)]
EXAMPLE = Path(__file__).parents[2] / "docs/examples/onnx_predict.py"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(2)
    for height, width in SIZES:
        save(folder / f"{height}x{width}.png", rng.integers(0, 255, (height, width, 3), np.uint8))
    return folder


@pytest.fixture
def bolts(parts: Path) -> MVTecAD:
    return bolt_data(parts)


def bolt_data(parts: Path) -> MVTecAD:
    return MVTecAD(root=parts, category="bolt", num_workers=0, val_split_mode="same_as_test")


@pytest.fixture(scope="module")
def fitted(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipAD:
    """SDP with statistics of a validation set."""
    model = ClipAD(**TINY, visualizer=False)
    make_engine(tmp_path_factory.mktemp("fit")).fit(model, datamodule=bolt_data(parts))
    return model


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> ClipAD:
    """SDP+ with the golden layers, without statistics."""
    path = tmp_path_factory.mktemp("adapter") / "layers.pth"
    expected = load_file(GOLDEN / "tiny12_expected.safetensors")
    layers = {name.removeprefix("adapter/"): value for name, value in expected.items() if name.startswith("adapter/")}
    torch.save({"linear_layers": layers}, path)
    return ClipAD(**shallow(), adapter=str(path), class_name="bottle", visualizer=False)


def predicted(model: ClipAD, images: Path, folder: Path) -> dict[str, Any]:
    """What the engine predicts, by name of the image."""
    batches = [make_engine(folder).predict(model, data_path=path)[0] for path in sorted(images.iterdir())]
    return {Path(batch.image_path[0]).name: batch for batch in batches}


def check(
    model: ClipAD,
    images: Path,
    folder: Path,
    predict: Callable[[Path], Any],
    map_tolerance: float = 1e-4,
    mask_pixels: int = 0,
    score_tolerance: float = 1e-4,
) -> None:
    """Scores and maps to their tolerances, and equal labels; masks up to ``mask_pixels``."""
    for name, wanted in predicted(model, images, folder).items():
        found = predict(images / name)
        for field in ("pred_score", "anomaly_map"):
            value = torch.as_tensor(np.asarray(getattr(found, field))).squeeze()
            tolerance = map_tolerance if field == "anomaly_map" else score_tolerance
            torch.testing.assert_close(
                value, getattr(wanted, field).squeeze(), atol=tolerance, rtol=0, msg=f"{name} {field}"
            )
        for field in ("pred_label", "pred_mask"):
            value = torch.as_tensor(np.asarray(getattr(found, field))).squeeze().bool()
            different = int((value != getattr(wanted, field).squeeze()).sum())
            assert different <= (mask_pixels if field == "pred_mask" else 0), (name, field, different)


def onnx_predict(path: Path, **more: np.ndarray) -> Callable[[Path], SimpleNamespace]:
    session = onnxruntime.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == OUTPUTS

    def predict(image: Path) -> SimpleNamespace:
        pixels = np.asarray(Image.open(image).convert("RGB"), np.float32) / 255
        values = session.run(None, {"input": pixels.transpose(2, 0, 1)[None], **more})
        return SimpleNamespace(**dict(zip(OUTPUTS, values, strict=True)))

    return predict


@pytest.fixture(scope="module")
def onnx_file(fitted: ClipAD, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_engine(tmp_path_factory.mktemp("engine")).export(
        fitted, "onnx", export_root=tmp_path_factory.mktemp("onnx")
    )


def test_torch_files_run_in_anomalibs_inferencer(
    fitted: ClipAD, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_engine(tmp_path).export(fitted, "torch", export_root=tmp_path)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    check(fitted, images, tmp_path, TorchInferencer(path, device="cpu").predict)
    vision = sum(value.numel() * 4 for value in fitted.model.detector.visual.parameters())
    assert path.stat().st_size < vision + 300_000  # no text tower, no tokenizer


@pytest.mark.slow
def test_onnx_files_run_in_onnxruntime(fitted: ClipAD, onnx_file: Path, images: Path, tmp_path: Path) -> None:
    check(fitted, images, tmp_path, onnx_predict(onnx_file))
    assert [path.name for path in onnx_file.parent.iterdir()] == ["model.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
def test_clipad_mini_predicts_the_same_in_every_runtime(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trained model on generated parts, and on real photographs where they are at hand."""
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    for number, defect in enumerate((None, "scratch", "hole")):
        picture = named_sample("gear", "export", number, defect, 0, 200 + 60 * number).image
        save(tmp_path / "images" / f"{number}.png", picture[20 * number :])
    for photograph in sorted(HAZELNUT.glob("test/*/0[045].jpg")):
        shutil.copy(photograph, tmp_path / "images" / f"{photograph.parent.name}-{photograph.name}")
    model = ClipAD(backbone="clipad-mini", class_name="hazelnut", visualizer=False)
    path = make_engine(tmp_path).export(model, kind, export_root=tmp_path)
    assert sum(part.stat().st_size for part in path.parent.iterdir()) < (14_000_000 if kind == "onnx" else 14_500_000)
    if kind == "torch":
        check(model, tmp_path / "images", tmp_path, TorchInferencer(path, device="cpu").predict)
    elif kind == "onnx":
        check(model, tmp_path / "images", tmp_path, onnx_predict(path))
    else:  # its float32 weights of the resize put some pixels one level off (docs/deployment.md)
        inferencer = OpenVINOInferencer(path, config={"INFERENCE_PRECISION_HINT": "f32"})
        check(model, tmp_path / "images", tmp_path, inferencer.predict, map_tolerance=2e-3, mask_pixels=4)


@pytest.mark.slow
def test_batches_of_any_length_give_each_image_its_own_result(onnx_file: Path, images: Path) -> None:
    session, one = onnxruntime.InferenceSession(onnx_file), onnx_predict(onnx_file)
    path = images / "150x70.png"
    pixels = np.asarray(Image.open(path), np.float32).transpose(2, 0, 1)[None] / 255
    several = session.run(["pred_score"], {"input": np.concatenate([pixels, 1 - pixels, pixels])})[0]
    np.testing.assert_allclose(several[[0, 2]], np.repeat(one(path).pred_score, 2), atol=1e-5)
    assert abs(several[1] - several[0]) > 1e-4


def check_facts(metadata: dict[str, str], model: ClipAD) -> None:
    """What another door needs to be equal to a file of a fitted SDP model, or to refuse it."""
    facts = {"class_name": "bolt", "rvs": "dbscan", "variant": "sdp", "prompts": "industrial", "patch_size": "16"}
    facts |= {"layers": "None", "aspect": "0.0", "frame": "whole", "normalized": "True", "tiles": "None"}
    facts |= {"image_tower": model.model.fingerprint, "version": version("anomalib-clipad")}
    assert {name: metadata.get(name) for name in facts} == facts
    assert json.loads(metadata["decision"]) == {"score_threshold": 0.5, "map_threshold": 0.5}
    assert 0 < float(metadata["pixel_max"]) - float(metadata["pixel_min"]) < 1


@pytest.mark.slow
def test_an_onnx_file_says_what_it_is(fitted: ClipAD, onnx_file: Path) -> None:
    check_facts(OnnxRuntime(onnx_file).metadata, fitted)


def test_a_torch_file_says_what_it_is(fitted: ClipAD, tmp_path: Path) -> None:
    check_facts(TorchRuntime(fitted.to_torch(tmp_path)).metadata, fitted)


@pytest.mark.slow
def test_an_image_that_is_not_a_number_is_defective(onnx_file: Path) -> None:
    pixels = np.full((1, 3, 64, 64), 0.5, np.float32)
    pixels[0, 1, 20, 30] = np.nan
    score, label, _, mask = onnxruntime.InferenceSession(onnx_file).run(None, {"input": pixels})
    assert np.isnan(score).all()
    assert label.all()
    assert mask.all()


@pytest.mark.slow
def test_other_channels_are_an_error_of_the_runtime(onnx_file: Path) -> None:
    with pytest.raises(Exception, match="Got invalid dimensions for input"):
        onnxruntime.InferenceSession(onnx_file).run(None, {"input": np.zeros((1, 1, 64, 64), np.float32)})


def example(model: Path, image: Path) -> subprocess.CompletedProcess[str]:
    """docs/examples/onnx_predict.py where nothing but numpy, pillow and onnxruntime can be imported."""
    absent = ("anomalib", "anomalib_clipad", "open_clip", "torch")
    program = f"import sys; sys.modules.update(dict.fromkeys({absent})); sys.argv = ['', *sys.argv[1:]]; "
    program += f"exec(open({str(EXAMPLE)!r}).read())"
    return subprocess.run([sys.executable, "-c", program, str(model), str(image)], capture_output=True, text=True)


@pytest.mark.slow
def test_the_example_runs_without_anomalib_torch_and_open_clip(onnx_file: Path, images: Path) -> None:
    result = example(onnx_file, images / "300x400.png")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("score 0.")


@pytest.mark.slow
def test_the_example_reads_16_bit_images_in_full_depth(onnx_file: Path, tmp_path: Path) -> None:
    grey = np.random.default_rng(3).integers(0, 255, (90, 70), np.uint8)
    Image.fromarray(grey).save(tmp_path / "8.png")
    expected = example(onnx_file, tmp_path / "8.png")
    assert expected.stdout.startswith("score 0.")
    for name in ("16.png", "16.tiff"):
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / name)
        assert example(onnx_file, tmp_path / name).stdout == expected.stdout, name


@pytest.mark.slow
def test_anomalibs_inferencers_score_16_bits_as_8_where_this_package_reads_the_file(
    fitted: ClipAD, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the path, they clip it."""
    grey = np.random.default_rng(3).integers(0, 255, (90, 70), np.uint8)
    eight, sixteen = save(tmp_path / "8.png", grey), save(tmp_path / "16.png", grey.astype(np.uint16) * 257)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    torch_file = make_engine(tmp_path).export(fitted, "torch", export_root=tmp_path)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    for inferencer in (TorchInferencer(torch_file, device="cpu"), OpenVINOInferencer(onnx_file, config=exact)):

        def score(image: Any, predict: Callable[[Any], Any] = inferencer.predict) -> float:
            return float(np.squeeze(predict(image).pred_score))

        assert score(read_image(sixteen, as_tensor=True)) == pytest.approx(score(eight), abs=1e-5)
        assert score(sixteen) != pytest.approx(score(eight), abs=1e-3)


@pytest.mark.slow
def test_the_example_refuses_images_of_unknown_depth(onnx_file: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((90, 70), 99, np.int32)).save(tmp_path / "32.tiff")
    result = example(onnx_file, tmp_path / "32.tiff")
    assert result.returncode == 1
    assert "32.tiff does not tell which value is white" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "compression",
    [None, CompressionType.FP16, CompressionType.INT8, CompressionType.INT8_PTQ, CompressionType.INT8_ACQ],
)
def test_openvino_files_run_in_anomalibs_inferencer(
    fitted: ClipAD,
    onnx_file: Path,
    bolts: MVTecAD,
    images: Path,
    tmp_path: Path,
    compression: Any,
) -> None:
    # nncf fails by itself where accuracy control takes quantisers back, which any drop would make it do here
    options = {"max_drop": 1.0} if compression is CompressionType.INT8_ACQ else {}
    path = make_engine(tmp_path).export(
        fitted, "openvino", export_root=tmp_path, compression_type=compression, datamodule=bolts, **options
    )
    assert sorted(part.name for part in path.parent.iterdir()) == ["model.bin", "model.xml"]
    check_facts(OpenVinoRuntime(path).metadata, fitted)
    inferencer = OpenVINOInferencer(path, config={"INFERENCE_PRECISION_HINT": "f32"})
    if compression is None:
        # its float32 weights of the resize put some pixels one level off (docs/deployment.md)
        check(fitted, images, tmp_path, inferencer.predict, map_tolerance=2e-3, mask_pixels=4)
    else:
        assert path.with_suffix(".bin").stat().st_size < 0.7 * onnx_file.stat().st_size
        wanted = predicted(fitted, images, tmp_path)["96x96.png"]
        found = inferencer.predict(images / "96x96.png")
        assert abs(float(found.pred_score.squeeze()) - float(wanted.pred_score)) < 0.2


@pytest.mark.slow
def test_an_openvino_file_for_one_size_predicts_the_same(images: Path, tmp_path: Path) -> None:
    model = ClipAD(**shallow(), class_name="bolt", visualizer=False)
    (tmp_path / "one").mkdir()
    shutil.copy(images / "96x96.png", tmp_path / "one")
    path = make_engine(tmp_path).export(model, "openvino", export_root=tmp_path, input_size=(96, 96))
    inferencer = OpenVINOInferencer(path, config={"INFERENCE_PRECISION_HINT": "f32"})
    check(model, tmp_path / "one", tmp_path, inferencer.predict)


@pytest.mark.slow
def test_a_quantised_openvino_file_for_one_size_is_calibrated_on_images_of_that_size(
    bolts: MVTecAD, tmp_path: Path
) -> None:
    """The data module's are of 80 x 80 and 96 x 96 pixels."""
    model = ClipAD(**shallow(), class_name="bolt", visualizer=False)
    options = {"input_size": (48, 64), "compression_type": CompressionType.INT8_PTQ, "datamodule": bolts}
    path = model.to_openvino(tmp_path, **options)
    pixels = np.random.default_rng(0).random((2, 3, 48, 64), np.float32)
    found, wanted = OpenVinoRuntime(path, "f32").run(pixels), model(torch.from_numpy(pixels))
    np.testing.assert_allclose(found["pred_score"], wanted.pred_score.numpy(), atol=0.2)


def test_a_data_module_delivers_one_size_while_a_file_is_written_and_its_own_afterwards(bolts: MVTecAD) -> None:
    bolts.setup("fit")

    def sizes() -> set[tuple[int, ...]]:
        return {tuple(batch.image.shape[-2:]) for batch in bolts.val_dataloader()}

    with _delivering(bolts, (48, 64)):
        assert sizes() == {(48, 64)}
        some = next(iter(bolts.val_dataloader())).image
        assert 0 <= some.min() < some.max() <= 1
    assert sizes() == {(96, 96)}


@pytest.mark.slow
def test_one_graph_serves_many_classes(images: Path, tmp_path: Path) -> None:
    model = ClipAD(**shallow(), visualizer=False)
    path = model.to_onnx(tmp_path, text_input=True)
    output = tmp_path / "features.safetensors"
    text_features(["bottle", "metal_nut"], output, shallow())
    vectors = load_file(output)
    assert sorted(vectors) == ["bottle", "metal_nut"]
    for name, vector in vectors.items():
        single = ClipAD(**shallow(), class_name=name, visualizer=False)
        check(single, images, tmp_path / name, onnx_predict(path, text_features=vector.numpy()))


@pytest.mark.slow
def test_export_leaves_the_live_model_as_it_was(fitted: ClipAD, images: Path, tmp_path: Path) -> None:
    def scores() -> Tensor:
        return torch.cat([batch.pred_score for batch in predicted(fitted, images, tmp_path).values()])

    before, state = scores(), {name: value.clone() for name, value in fitted.state_dict().items()}
    fitted.to_torch(tmp_path)
    assert torch.equal(scores(), before)
    assert all(torch.equal(value, state[name]) for name, value in fitted.state_dict().items())


def test_a_failed_export_leaves_nothing(adapted: ClipAD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(graph: object, inputs: object, path: Path, **options: object) -> None:
        path.write_bytes(b"half a mod")
        raise OSError(28, "disk full")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(OSError, match="disk full"):
        adapted.to_onnx(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_missing_packages_name_the_extra(adapted: ClipAD, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalib_clipad.extras.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ModuleNotFoundError, match=r"needs onnxscript: pip install .*'onnx>="):
        adapted.to_onnx(tmp_path)


def test_a_model_needs_a_class_and_trained_layers(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="for one class; give class_name"):
        ClipAD(**shallow()).to_torch(tmp_path)
    with pytest.raises(RuntimeError, match="not trained"):
        ClipAD(**shallow(), variant="sdp_plus", class_name="bolt").to_torch(tmp_path)


def test_folder_with_labels_only_exports(parts: Path, tmp_path: Path) -> None:
    """Statistics of image labels alone."""
    layout = {"normal_dir": "train/good", "abnormal_dir": "test/scratch", "normal_test_dir": "test/good"}
    data = Folder("bolt", root=parts / "bolt", val_split_mode="same_as_test", num_workers=0, **layout)
    model = ClipAD(**shallow(), class_name="bolt", visualizer=False)
    make_engine(tmp_path).fit(model, datamodule=data)
    graph = model.deployed()
    assert graph(torch.rand(1, 3, 70, 70)).pred_score.isfinite().all()


# Tiles


@pytest.fixture(scope="module", params=[{}, {"text_weight": 0.0}], ids=["text", "references"])
def tiled(request: pytest.FixtureRequest, parts: Path) -> ClipAD:
    options = {"few_shot_source": parts / "bolt/train/good", **request.param} if request.param else {}
    return ClipAD(**shallow(), class_name="bolt", visualizer=False, tiles=[2, 3], **options)


def test_tiles_run_in_anomalibs_inferencer(
    tiled: ClipAD, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_engine(tmp_path).export(tiled, "torch", export_root=tmp_path)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    check(tiled, images, tmp_path, TorchInferencer(path, device="cpu").predict)


@pytest.mark.slow
def test_tiles_run_in_onnxruntime_and_openvino(tiled: ClipAD, images: Path, tmp_path: Path) -> None:
    path = make_engine(tmp_path).export(tiled, "onnx", export_root=tmp_path)
    assert {entry.key: entry.value for entry in onnx.load(path).metadata_props}["tiles"] == "[2, 3]"
    check(tiled, images, tmp_path, onnx_predict(path))
    pixels = np.random.default_rng(0).random((3, 3, 150, 170), np.float32)
    together = onnxruntime.InferenceSession(path).run(None, {"input": pixels})
    assert together[2].shape[-2:] == (112, 160)
    for index, image in enumerate(pixels):
        alone = onnxruntime.InferenceSession(path).run(None, {"input": image[None]})
        for several, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(several[index], one[0], atol=1e-5)
    # its float32 weights of the resize put some pixels one level off (docs/deployment.md)
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(pixels)
    for index, name in enumerate(OUTPUTS):
        if name in {"pred_score", "anomaly_map"}:
            np.testing.assert_allclose(compiled[index], together[index], atol=2e-3)
