"""What text and references say alone is what models of one of them say."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import shallow
from torch import nn

from anomalib_clipad.adaptors.files import TrainedLayers
from anomalib_clipad.adaptors.registry import ADAPTORS
from anomalib_clipad.inspection.inspector import Inspector

MODEL = shallow()
OPTIONS = [{}, {"text_weight": 0.25}, {"text_weight": 1.0}, {"tiles": [2, 2]}]
OPTIONS += [{"variant": variant} for variant in ADAPTORS]


def noise(seed: int, height: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(height, 80, 3), dtype=np.uint8) // (1 + seed % 3)


REFERENCES = [noise(seed) for seed in range(3)]
IMAGES = [noise(seed) for seed in range(10, 14)]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Inspectors of the tiny CLIP; no layers are trained for it, so they are drawn."""

    def drawn(_: TrainedLayers, layers: nn.Module, *others: Any) -> None:
        del others
        generator = torch.Generator().manual_seed(0)
        for weights in layers.parameters():
            torch.nn.init.normal_(weights, generator=generator)

    monkeypatch.setattr(TrainedLayers, "settings", lambda _, chosen: dict(chosen))
    monkeypatch.setattr(TrainedLayers, "load", drawn)

    def make(**options: Any) -> Inspector:
        layers = {"adapter": "none"} if "variant" in options else {}
        return Inspector(None if options.get("text_weight") == 0 else "nut", **MODEL, **options, **layers)

    return make


@pytest.mark.parametrize("options", OPTIONS)
def test_each_eye_sees_what_it_would_alone(make: Any, options: dict[str, Any]) -> None:
    joined = make(**options, references=REFERENCES)
    text, images = make(**options), make(**{**options, "text_weight": 0}, references=REFERENCES)
    found = [*joined.inspect(IMAGES), joined.inspect(IMAGES[0])]
    by_text = [*text.inspect(IMAGES), text.inspect(IMAGES[0])]
    by_images = [*images.inspect(IMAGES), images.inspect(IMAGES[0])]
    assert [one.text_score for one in found] == pytest.approx([one.score for one in by_text], abs=2e-6)
    assert [one.reference_score for one in found] == pytest.approx([one.score for one in by_images], abs=2e-6)
    for one in (*by_text, *by_images):
        assert (one.text_score, one.reference_score) == (None, None)


@pytest.mark.parametrize("text_weight", [0.5, 0.25])
def test_their_maps_are_joined_by_their_shares(make: Any, text_weight: float) -> None:
    """Sum of text and references, docs/algorithm.md: both in units of their midpoints, 2 and D."""
    joined = make(references=REFERENCES, text_weight=text_weight, joining="sum")
    text = make().inspect(IMAGES[0]).anomaly_map
    images = make(references=REFERENCES, text_weight=0).inspect(IMAGES[0]).anomaly_map
    memory = joined.live("a test").model.detector.memory
    assert memory is not None
    farthest = float(memory.farthest)
    distance = farthest * np.sqrt(images / (1 - images))
    shares = text_weight * 2, (1 - text_weight) * farthest
    ratio = (shares[0] * 2 * text + (1 - text_weight) * distance) / sum(shares)
    np.testing.assert_allclose(joined.inspect(IMAGES[0]).anomaly_map, ratio**2 / (1 + ratio**2), atol=1e-5)


@pytest.mark.parametrize("text_weight", [0.5, 0.25])
def test_so_it_is_with_images_that_judge_each_other(make: Any, text_weight: float) -> None:
    pool = [noise(seed) for seed in range(20, 29)]
    joined, images = (make(mutual=pool, text_weight=share) for share in (text_weight, 0))
    asked = [pool[2], *IMAGES]
    found, by_images = list(joined.inspect(asked)), list(images.inspect(asked))
    assert [one.text_score for one in found] == pytest.approx([one.score for one in make().inspect(asked)], abs=2e-6)
    assert [one.reference_score for one in found] == pytest.approx([one.score for one in by_images], abs=1e-5)
    assert joined.decision.text.startswith("not calibrated, since images judge each other")


def test_another_look_has_them_anew(make: Any) -> None:
    joined = make(references=REFERENCES)
    before = joined.inspect(IMAGES[0])
    passes = joined.live("a test").passes
    assert joined.look_again().text_score == before.text_score
    other = joined.again("gear")
    assert joined.live("a test").passes == passes + 1, "the references, for what the text says of them"
    assert other.reference_score == before.reference_score
    assert other.text_score != before.text_score
    assert other.to_dict()["text_score"] == other.text_score


def test_where_something_is_ignored_they_are_not_known(make: Any) -> None:
    mask = np.zeros((64, 80), bool)
    mask[:8] = True
    finding = make(references=REFERENCES, ignore=mask).inspect(IMAGES[0])
    assert (finding.text_score, finding.reference_score) == (None, None)
