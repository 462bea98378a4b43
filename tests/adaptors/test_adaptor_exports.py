"""AF-CLIP and AA-CLIP behind the doors: files that were exported, checkpoints, the stock engine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from conftest import save
from neighbours import FILES, authors, tiny

from anomalib_clipad import ClipAD

IMAGES = torch.rand(2, 3, 90, 130, generator=torch.Generator().manual_seed(0))


def make(folder: Path, layers: Path, **options: Any) -> ClipAD:
    settings = {**tiny(folder, quick_gelu=True).settings(), "class_name": "bottle", "text_cache": False, **options}
    return ClipAD(adapter=layers, visualizer=False, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("tiles", [None, [1, 2]], ids=["whole", "tiles"])
@pytest.mark.parametrize("variant", FILES)
def test_references_come_along_and_as_an_input(
    tmp_path: Path,
    variant: str,
    tiles: list[int] | None,
) -> None:
    rng = np.random.default_rng(0)
    for name in "abc":
        save(tmp_path / f"good/{name}.png", rng.integers(0, 255, (120, 160, 3), np.uint8))
    model = make(tmp_path, authors(tmp_path, variant), few_shot_source=tmp_path / "good", tiles=tiles)
    images = torch.rand(2, 3, 120, 160)
    live = model(images)
    memory = model.model.detector.memory
    assert memory.tokens.shape[-3] == model.model.detector.reader.sets == {"af_clip": 12, "aa_clip": 4}[variant]
    whole = model.deployed()(images)
    inputs = {"midpoint": model.model.detector.midpoint, "joining": torch.tensor(model.model.detector.joining)}
    given = model.deployed(memory_input=True)(images, memory=memory.tokens, **inputs)
    for found in (whole, given):
        torch.testing.assert_close(found.anomaly_map, live.anomaly_map, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.pred_score, live.pred_score, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("variant", FILES)
def test_a_checkpoint_restores_it(
    tmp_path: Path,
    variant: str,
    datamodule: MVTecAD,
    engine: Engine,
) -> None:
    model = make(tmp_path, authors(tmp_path, variant))
    engine.fit(model, datamodule=datamodule)
    (metrics,) = engine.test(model, datamodule=datamodule)
    assert len(metrics) == 7
    (path,) = tmp_path.rglob("*.ckpt")
    settings = tiny(tmp_path, quick_gelu=True).settings()
    again = ClipAD.load_from_checkpoint(path, **settings, visualizer=False)
    assert again.model.title == model.model.title
    before, after = model(IMAGES), again(IMAGES)
    assert torch.equal(before.pred_score, after.pred_score)
    assert torch.equal(before.anomaly_map, after.anomaly_map)
