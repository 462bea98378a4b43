"""Files for any image size, whose size somebody fixes afterwards: OpenVINO compiles them, and nothing changes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import shallow
from torch.export import Dim

from anomalib_clipad import ClipAD
from anomalib_clipad.vision.matrix_resize import MatrixResize

FIX_AND_RUN = """
import sys
from pathlib import Path
import numpy as np, openvino
from anomalib_clipad.predictor.runtimes import OpenVinoRuntime
model, pixels, found = map(Path, sys.argv[1:])
pixels, fixed = np.load(pixels), found.with_suffix(".xml")
model = openvino.Core().read_model(model)
model.reshape({"input": list(pixels.shape)})
assert all(output.partial_shape.is_static for output in model.outputs)
openvino.save_model(model, fixed, compress_to_fp16=False)
np.savez(found, **OpenVinoRuntime(fixed, "f32").run(pixels))
"""


def fixed(model: Path, pixels: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """Outputs of a file in OpenVINO, fixed to these images; in a process of its own, as it once never ended."""
    np.save(folder / "pixels.npy", pixels)
    arguments = [sys.executable, "-c", FIX_AND_RUN, str(model), str(folder / "pixels.npy"), str(folder / "found.npz")]
    subprocess.run(arguments, check=True, timeout=60)
    return dict(np.load(folder / "found.npz"))


def noise(height: int, width: int) -> np.ndarray:
    levels = np.random.default_rng(6).integers(0, 256, (2, 3, height, width))
    return levels.astype(np.float32) / 255


@pytest.mark.parametrize(("interpolation", "whole_levels"), [("bicubic", True), ("bilinear", False)])
def test_the_resize_compiles_for_one_size(interpolation: str, whole_levels: bool, tmp_path: Path) -> None:
    resize, pixels = MatrixResize((64, 64), interpolation, whole_levels).eval(), noise(150, 70)
    sides = {0: Dim("batch"), 2: Dim("height", min=2), 3: Dim("width", min=2)}
    names = {"input_names": ["input"], "output_names": ["resized"]}
    torch.onnx.export(
        resize, (torch.zeros(2, 3, 90, 100),), tmp_path / "resize.onnx", dynamic_shapes=[sides], verbose=False, **names
    )
    difference = np.abs(
        fixed(tmp_path / "resize.onnx", pixels, tmp_path)["resized"] - resize(torch.from_numpy(pixels)).numpy()
    )
    assert difference.max() < 1.01 / 255
    assert (difference > 1e-5).mean() < 2e-3  # a pixel in a thousand is a level off, as in any OpenVINO file


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"tiles": [2, 3]}], ids=["whole", "tiles"])
@pytest.mark.parametrize("size", [(240, 240), (300, 170)], ids=str)
def test_a_model_compiles_for_one_size(options: dict, size: tuple[int, int], tmp_path: Path) -> None:
    pixels = noise(*size)
    model = ClipAD(**shallow(), class_name="bolt", visualizer=False, **options)
    path = model.to_onnx(tmp_path)
    outputs = ["pred_score", "anomaly_map"]
    expected = onnxruntime.InferenceSession(path).run(outputs, {"input": pixels})
    found = fixed(path, pixels, tmp_path)
    for name, values in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(found[name], values, atol=2e-3, err_msg=name)
