"""torchvision's own resize as pre-processor: an export and a checkpoint see what the engine sees."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from conftest import save, shallow
from torchvision.transforms.v2 import Compose, InterpolationMode, Normalize, Resize

from anomalib_clipad import ClipAD
from anomalib_clipad.predictor.runtimes import run_torch

PIXELS = np.random.default_rng(0).integers(0, 255, (90, 70, 3), np.uint8)


def resizing(**options: Any) -> ClipAD:
    transform = Compose([Resize((64, 64), **options), Normalize([0.5] * 3, [0.2] * 3)])
    return ClipAD(**shallow(), class_name="bolt", visualizer=False, pre_processor=PreProcessor(transform))


@pytest.mark.parametrize(
    "options",
    [{}, *({"interpolation": value} for value in ("bicubic", 2, 3, InterpolationMode.BICUBIC))],
    ids=["default", "name", "Pillow's bilinear", "Pillow's bicubic", "torchvision's"],
)
def test_every_way_to_name_an_interpolation_scores_alike_everywhere(
    options: dict, engine: Engine, tmp_path: Path
) -> None:
    model = resizing(**options)
    predicted = engine.predict(model, data_path=save(tmp_path / "one/image.png", PIXELS))
    assert predicted
    expected, checkpoint = predicted[0], tmp_path / "model.ckpt"
    engine.trainer.save_checkpoint(checkpoint)
    images = torch.from_numpy(PIXELS).permute(2, 0, 1)[None] / 255
    restored = ClipAD.load_from_checkpoint(checkpoint, **shallow())
    for graph in (model.deployed(), restored.deployed()):
        found = run_torch(graph, images.numpy())
        assert float(found["pred_score"][0]) == pytest.approx(float(expected.pred_score[0]), abs=1e-5)
        np.testing.assert_allclose(found["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-5)
    for called in (model(images), restored(images)):
        assert float(called.pred_score[0]) == pytest.approx(float(expected.pred_score[0]), abs=1e-5)


def test_what_no_product_of_matrices_is_gets_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"Only bicubic and bilinear.*not nearest"):
        resizing(interpolation="nearest").deployed()
    kept = ClipAD(**shallow(), class_name="bolt", visualizer=False, pre_processor=PreProcessor(Resize(64)))
    with pytest.raises(ValueError, match="keeps the aspect, which an exported graph cannot; give height and width"):
        kept.deployed()
