"""The predictor of a checkpoint is what the engine has of it, or the checkpoint is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from conftest import shallow
from pictures import picture
from torchvision.transforms.v2 import CenterCrop, Compose, Resize

from anomalib_clipad import ClipAD, Inspector
from anomalib_clipad.images.alike import identify
from anomalib_clipad.images.picture import Picture
from anomalib_clipad.inspection.checkpoint import from_checkpoint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (path := tmp_path / "model.ckpt").touch()
    return path


def restored(monkeypatch: pytest.MonkeyPatch, **options: Any) -> ClipAD:
    """What Lightning makes of the next checkpoint."""
    module = ClipAD(**shallow(), rvs="mean", visualizer=False, **{"class_name": "nut", **options})
    monkeypatch.setattr(ClipAD, "load_from_checkpoint", lambda *_, **__: module)
    return module


def test_it_looks_for_the_class_of_the_checkpoint_or_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restored(monkeypatch)
    assert from_checkpoint(path).class_name == "nut"
    assert from_checkpoint(path, "bolt").class_name == "bolt"
    restored(monkeypatch, text_weight=0.0, k_shot=1).preparation.remember = lambda *_: None
    with pytest.raises(ValueError, match="Leave out class_name 'bolt'"):
        from_checkpoint(path, "bolt")


def test_one_whose_images_judge_each_other_needs_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restored(monkeypatch, mutual=True)
    with pytest.raises(ValueError, match="judge each other: pass them as mutual"):
        from_checkpoint(path)
    assert from_checkpoint(path, mutual=True).class_name == "nut"


def test_what_its_pre_processing_shows_is_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restored(monkeypatch)
    assert from_checkpoint(path).frame == "whole"
    restored(monkeypatch, pre_processor=PreProcessor(Compose([Resize((96, 96)), CenterCrop(64)])))
    assert from_checkpoint(path).frame == "CenterCrop"


def test_its_references_are_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = identify(Picture(np.zeros((8, 8, 3), np.uint8)), "normal/0.png")
    restored(monkeypatch).preparation.predictor.references = (identity,)
    assert from_checkpoint(path).references == (identity,)


def test_one_that_decides_in_a_way_of_its_own_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restored(monkeypatch, post_processor=PostProcessor())
    with pytest.raises(ValueError, match="by a post-processor of its own, PostProcessor"):
        from_checkpoint(path)


def test_other_words_come_with_the_references(tmp_path: Path) -> None:
    references = [picture(seed).pixels for seed in range(4)]
    Inspector("nut", **shallow(), references=references).save(tmp_path / "nut.ckpt")
    with pytest.raises(ValueError, match="Pass the images again, or joining='sum'"):
        Inspector("bolt", model=tmp_path / "nut.ckpt")
    image, expected = picture(9).pixels, Inspector("bolt", **shallow(), references=references)
    found = Inspector("bolt", model=tmp_path / "nut.ckpt", references=references)
    assert found.inspect(image).score == pytest.approx(expected.inspect(image).score, abs=1e-6)
