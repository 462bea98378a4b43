"""Files of version 0.2: what is read gives the scores of then, and what is not says so."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import GOLDEN

from anomalib_clipad import Inspector
from anomalib_clipad.predictor.runtimes import load

FILES = GOLDEN / "version_0_2"
SCORES = [0.083835, 0.131037, 0.135325, 0.101479]
P_VALUES = [10 / 13, 3 / 13, 2 / 13, 9 / 13]
"""What version 0.2 found in these images: a checkpoint with three references, calibrated on twelve other images."""


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    monkeypatch.chdir(GOLDEN)  # the files name their backbone as it is called there
    rng = np.random.default_rng(3)
    return [rng.normal(128, 12, (64, 64, 3)).clip(0, 255).astype(np.uint8) for _ in SCORES]


def test_a_calibrated_checkpoint_decides_as_it_did(images: list[np.ndarray]) -> None:
    own = Inspector(model=FILES / "calibrated.ckpt")
    found = list(own.inspect(images))
    assert [one.score for one in found] == pytest.approx(SCORES, abs=1e-4)
    assert [one.p_value for one in found] == pytest.approx(P_VALUES)
    assert own.model.normal is not None
    assert own.model.normal.rate == 0.1


def test_a_product_file_is_taken_by_what_it_says(images: list[np.ndarray]) -> None:
    """Its settings, text and references; it did not say yet which images these were."""
    own = Inspector(product=FILES / "product.safetensors")
    assert [one.score for one in own.inspect(images)] == pytest.approx(SCORES, abs=1e-4)
    assert (own.model.class_name, own.model.references) == ("bolt", ())


class _Moved:
    """Stands for a class of version 0.2 in a pickle."""


_Moved.__module__, _Moved.__qualname__ = "anomalib_clipad.deploy.tower", "Tower"


def test_a_torch_file_is_refused_by_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a pickle of classes that have moved."""
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    place = ModuleType("anomalib_clipad.deploy.tower")
    place.Tower = _Moved  # type: ignore[attr-defined]
    with monkeypatch.context() as then:
        then.setitem(sys.modules, place.__name__, place)
        torch.save({"model": _Moved()}, tmp_path / "old.pt")
    with pytest.raises(ValueError, match=r"exported by an older version.*Export it anew"):
        load(tmp_path / "old.pt")
