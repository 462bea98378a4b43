"""Exported few-shot models: the memory is inside, or comes as an input from a product file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from conftest import shallow
from pictures import noise, write
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_export import check, onnx_predict

from anomalib_clipad import ClipAD
from anomalib_clipad.predictor.products import save_product
from anomalib_clipad.tools.product import product

INPUTS = ("text_features", "memory", "midpoint", "joining")
EXAMPLE = Path(__file__).parents[2] / "docs/examples/onnx_products.py"


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("normal"), *(noise(index, 96, 80 + 8 * index) for index in range(3)))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("images"), noise(3, 96, 80), noise(4, 96, 88))


def few_shot(normal: Path, **options: object) -> ClipAD:
    return ClipAD(**shallow(), **{"class_name": "bottle", "few_shot_source": normal, "visualizer": False, **options})


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_torch_files_hold_the_memory(
    normal: Path, images: Path, tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    model = few_shot(normal, text_weight=share)
    path = model.to_torch(tmp_path)
    check(model, images, tmp_path, TorchInferencer(path, device="cpu").predict)


@pytest.mark.slow
def test_openvino_files_hold_the_memory(normal: Path, images: Path, tmp_path: Path) -> None:
    """By way of ONNX; here without the text."""
    model = few_shot(normal, class_name=None, text_weight=0.0)
    inferencer = OpenVINOInferencer(model.to_openvino(tmp_path), config={"INFERENCE_PRECISION_HINT": "f32"})
    check(model, images, tmp_path, inferencer.predict, map_tolerance=2e-3, mask_pixels=9, score_tolerance=1e-3)


@pytest.mark.slow
def test_one_graph_serves_many_products(normal: Path, images: Path, tmp_path: Path) -> None:
    """Also with other numbers of images in the memory."""
    path = ClipAD(**shallow(), visualizer=False).to_onnx(tmp_path, text_input=True, memory_input=True)
    for name, shots in {"bottle": None, "metal_nut": 1}.items():
        file = tmp_path / f"{name}.safetensors"
        product(file, name, shallow(), {"references": normal}, k_shot=shots)
        tensors = {key: value.numpy() for key, value in load_file(file).items() if key in INPUTS}
        single = few_shot(normal, class_name=name, k_shot=shots)
        check(single, images, tmp_path / name, onnx_predict(path, **tensors))
    printed = subprocess.run(
        [sys.executable, EXAMPLE, path, file, images / "0.png"], capture_output=True, text=True, check=True
    )
    score = float(single(torch.from_numpy(pixels(images / "0.png"))[None]).pred_score)
    assert float(printed.stdout.split()[1].rstrip(",")) == pytest.approx(score, abs=2e-4)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), np.float32).transpose(2, 0, 1) / 255


@pytest.mark.slow
def test_a_product_file_is_a_source_of_normal_images(normal: Path, images: Path, tmp_path: Path) -> None:
    product(tmp_path / "bottle.safetensors", "bottle", shallow(), {"references": normal})
    image = torch.from_numpy(pixels(images / "0.png"))[None]
    by_file, by_folder = (few_shot(source)(image) for source in (tmp_path / "bottle.safetensors", normal))
    assert torch.equal(by_file.pred_score, by_folder.pred_score)
    assert torch.equal(by_file.anomaly_map, by_folder.anomaly_map)
    with safe_open(tmp_path / "bottle.safetensors", "pt") as file:
        settings = json.loads(file.metadata()["settings"])
    assert settings["class_name"] == "bottle"
    assert settings["image_tower"] == few_shot(normal).model.fingerprint


def changed(path: Path, settings: dict[str, object], **tensors: torch.Tensor) -> Path:
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["settings"])
    content = {**load_file(path), **tensors}
    save_file(content, path, metadata={"settings": json.dumps({**about, **settings})})
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_tower": "0" * 32}, "image tower 000000000000.*this model has backbone"),
        ({"tap": "block"}, "with tap 'block', and this model has tap 'reference'"),
        ({"image_size": 128}, "with image_size 128, and this model has image_size 64"),
    ],
)
def test_a_product_of_another_model_is_refused(normal: Path, tmp_path: Path, settings: dict, message: str) -> None:
    path = tmp_path / "bottle.safetensors"
    product(path, "bottle", shallow(), {"references": normal})
    with pytest.raises(ValueError, match=message):
        few_shot(changed(path, settings)).prepare()


@pytest.mark.slow
def test_a_damaged_product_is_refused(normal: Path, tmp_path: Path) -> None:
    path = tmp_path / "bottle.safetensors"
    product(path, "bottle", shallow(), {"references": normal})
    memory = load_file(path)["memory"]
    memory[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="damaged"):
        few_shot(changed(path, {}, memory=memory)).prepare()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="no product file, or is damaged"):
        few_shot(path).prepare()


def test_a_product_needs_a_class_name_or_no_text(normal: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--class_name"):
        product(tmp_path / "bottle.safetensors", None, shallow(), {"references": normal})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_inputs_that_the_graph_lacks_are_refused(normal: Path) -> None:
    images = torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match="memory_input"):
        few_shot(normal).deployed()(images, memory=torch.rand(4, 16, 64), midpoint=torch.tensor(1.0))
    with pytest.raises(ValueError, match="memory_input"):
        few_shot(normal).deployed(memory_input=True)(images, memory=torch.rand(4, 16, 64))
    with pytest.raises(RuntimeError, match="memory_input alone"):
        few_shot(normal, text_weight=0.0).deployed(text_input=True, memory_input=True)
    with pytest.raises(RuntimeError, match="of one class, by their spreads"):
        few_shot(normal).deployed(text_input=True)
    few_shot(normal, joining="sum").deployed(text_input=True)
    few_shot(normal, k_shot=2).deployed(text_input=True)


@pytest.mark.slow
def test_a_graph_with_tiles_takes_the_memory_of_a_product(normal: Path, images: Path, tmp_path: Path) -> None:
    options = {"text_weight": 0.0, "tiles": [2, 2], "aligned": True}
    model = few_shot(normal, k_shot=2, **options)
    model.prepare()
    save_product(tmp_path / "one.safetensors", model.preparation.predictor)
    given = {name: value.numpy() for name, value in load_file(tmp_path / "one.safetensors").items()}
    assert given["memory"].shape == (5, 4, 2 * 16, 64)
    path = model.to_onnx(tmp_path, memory_input=True)
    check(model, images, tmp_path, onnx_predict(path, memory=given["memory"], midpoint=given["midpoint"]))
    again = few_shot(tmp_path / "one.safetensors", **options)
    check(again, images, tmp_path, onnx_predict(path, memory=given["memory"], midpoint=given["midpoint"]))
    other = few_shot(tmp_path / "one.safetensors", text_weight=0.0, tiles=[2, 3])
    with pytest.raises(ValueError, match=r"with tiles \[2, 2\], and this model has tiles \[2, 3\]"):
        other.prepare()
