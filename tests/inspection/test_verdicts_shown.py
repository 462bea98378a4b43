"""A finding's verdicts are those of the normal scores: by the image, by its regions, and where parts are ignored."""

import numpy as np
import pytest
from conftest import shallow

from anomalib_clipad import Inspector
from anomalib_clipad.predictor.base import Scored
from anomalib_clipad.verdicts.normal_scores import NormalScores

MODEL = shallow()
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)


def calibrated(monkeypatch: pytest.MonkeyPatch, score: float, peak: float, **options: object) -> Inspector:
    """An inspector with three normal images of higher scores, and seven of higher peaks, of nine."""
    own = Inspector("nut", **MODEL, **options)
    sides = [np.where(np.arange(9) < count, 0.01, -0.01) for count in (3, 7)]
    monkeypatch.setattr(type(own.model), "normal", NormalScores(score + sides[0], peak + sides[1], 0.5))
    own.decide_by()
    return own


def test_images_and_regions_are_compared_with_scores_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Inspector("nut", **MODEL).inspect(IMAGE)
    own = calibrated(monkeypatch, plain.score, float(plain.map.max()))
    finding = own.inspect(IMAGE)
    assert (finding.p_value, finding.label, finding.regions) == (0.4, True, ())
    own.decide_by(false_alarm_rate=0.8)
    finding = own.inspect(IMAGE)
    assert finding.regions[0].peak == finding.map.max()
    assert finding.regions[0].p_value == 0.8
    assert sum(region.area for region in finding.regions) == finding.mask.sum()


def test_where_something_is_ignored_the_image_is_its_largest_region(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Inspector("nut", **MODEL).inspect(IMAGE)
    lowest = plain.map == plain.map.min()
    finding = calibrated(monkeypatch, plain.score, float(plain.map.max()), ignore=lowest).inspect(IMAGE)
    assert finding.score == plain.map.max()
    assert (finding.p_value, finding.label) == (0.8, False)


def test_the_table_has_the_pixels_of_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions below the smallest area are in neither, though one lies in the box of another."""
    anomaly_map = np.full((64, 80), 0.1, np.float32)
    anomaly_map[8:60, 8] = anomaly_map[56:60, 8:72] = 0.9
    anomaly_map[20:22, 40:42] = 0.95
    own = Inspector("nut", **MODEL, min_area=5)
    monkeypatch.setattr(own.model, "score", lambda _: Scored(np.array([0.9]), anomaly_map[None]))
    [finding] = own.inspect([IMAGE])
    assert [region.area for region in finding.regions] == [48 + 4 * 64]
    assert finding.mask.sum() == finding.regions[0].area
    assert not finding.mask[20, 40]


def test_references_that_were_left_out_are_known_as_such() -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (64, 80, 3), np.uint8) for seed in range(4)]
    normal = Inspector("nut", **MODEL, references=images, false_alarm_rate=0.3).model.normal
    assert normal is not None
    assert (normal.rate, normal.left_out) == (pytest.approx(0.3), True)
    assert "left out in turn" in normal.promise()
