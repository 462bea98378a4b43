"""What every predictor shares: checks of images, and calibration on those that count."""

from collections.abc import Iterable

import numpy as np
import pytest
from pictures import picture
from stand_ins import Brightness

from anomalib_clipad.predictor.base import Measured, Predictor, Scored, Shown, numbers
from anomalib_clipad.vision.tile_grid import TileGrid

ALIGNED = TileGrid(rows=2, columns=2, size=64, patch=16, aligned=True)


def shown(predictor: Predictor, seeds: Iterable[int]) -> list[Shown]:
    return [predictor.show(picture(seed), f"{seed}.png") for seed in seeds]


# Calibration


def test_an_image_counts_by_its_score_and_by_the_maximum_of_its_map() -> None:
    predictor = Brightness()
    predictor.calibrate(shown(predictor, range(11)), 0.1)
    maps = [picture(seed).levels.mean(axis=0) for seed in range(11)]
    normal = predictor.normal
    assert normal is not None
    np.testing.assert_allclose(normal.image_scores, [one.mean() for one in maps], atol=1e-6)
    np.testing.assert_allclose(normal.region_scores, [one.max() for one in maps], atol=1e-6)
    assert (normal.rate, normal.left_out) == (0.1, False)
    assert [one["name"] for one in normal.identities] == [f"{seed}.png" for seed in range(11)]


def test_of_a_map_only_what_is_looked_at_counts() -> None:
    predictor = Brightness()
    predictor.calibrate(shown(predictor, range(3)), None, lambda anomaly_map, size: anomaly_map[: size[0] // 8])
    normal = predictor.normal
    assert normal is not None
    expected = [picture(seed).levels.mean(axis=0)[:5].max() for seed in range(3)]
    np.testing.assert_allclose(normal.region_scores, expected, atol=1e-6)


def test_ten_copies_of_two_images_calibrate_as_two() -> None:
    predictor = Brightness()
    with pytest.warns(UserWarning, match="Copies of an image count once"):
        predictor.calibrate(shown(predictor, 10 * [0, 1]), None)
    assert predictor.normal is not None
    assert len(predictor.normal) == 2


@pytest.mark.parametrize("column", ["score", "peak"])
def test_a_score_that_is_no_number_calibrates_nothing(column: str) -> None:
    predictor = Brightness()
    measured = predictor.measure(shown(predictor, range(3)))
    values = getattr(measured, column).copy()
    values[1] = np.nan
    with pytest.raises(ValueError, match=r"calibration images 1\.png are no numbers"):
        predictor.certify(measured._replace(**{column: values}), None)
    assert predictor.normal is None


def test_the_number_format_of_the_scores_is_kept() -> None:
    predictor = Brightness()
    predictor.precision = "bfloat16"
    predictor.calibrate(shown(predictor, range(3)), None)
    assert predictor.normal is not None
    assert predictor.normal.computed_in == "bfloat16"


def test_references_calibrate_only_where_they_are_left_out() -> None:
    predictor = Brightness()
    images = shown(predictor, range(3))
    predictor.fit(images)
    measured: Measured = predictor.measure(images)
    with pytest.raises(ValueError, match=r"The calibration image 0\.png is also a reference"):
        predictor.certify(measured, 0.3)
    predictor.certify(measured, 0.3, left_out=True)
    assert predictor.normal is not None
    assert (predictor.normal.left_out, predictor.normal.rate) == (True, 0.3)


def test_too_few_images_for_a_rate_are_refused_and_change_nothing() -> None:
    predictor = Brightness()
    with pytest.raises(ValueError, match="takes 9 normal images or more; the model is calibrated on 5"):
        predictor.calibrate(shown(predictor, range(5)), 0.1)
    assert predictor.normal is None


def test_no_images_calibrate_nothing() -> None:
    with pytest.raises(ValueError, match="There are no calibration images"):
        Brightness().calibrate([], None)


# Images


def test_an_image_too_small_for_the_tiles_is_refused() -> None:
    predictor = Brightness(ALIGNED)
    for reference in (False, True):
        with pytest.raises(ValueError, match="too small for tiles"):
            predictor.show(picture(0, 31, 40), "a.png", reference)
    with pytest.raises(ValueError, match="too small for tiles"):
        predictor.prepare(picture(0, 40, 31))


def test_an_image_of_another_shape_may_be_a_reference_and_is_not_compared() -> None:
    predictor = Brightness(ALIGNED, aspect=1.0)
    assert predictor.show(picture(0, 40, 60), "a.png", reference=True).size == (40, 60)
    with pytest.raises(ValueError, match="of another shape than"):
        predictor.show(picture(0, 40, 60), "a.png")


@pytest.mark.parametrize("anomaly_map", [0.5, np.nan, np.inf])
@pytest.mark.parametrize("score", [0.5, np.nan, np.inf])
def test_scores_that_are_no_numbers_are_an_error(score: float, anomaly_map: float) -> None:
    scored = Scored(np.array([0.1, score]), np.full((2, 3, 3), anomaly_map))
    if score == anomaly_map == 0.5:
        assert numbers(scored) is scored
    else:
        with pytest.raises(ValueError, match="The model's scores are no numbers"):
            numbers(scored)


def test_references_and_calibration_images_are_known() -> None:
    predictor = Brightness()
    assert predictor.known() is None
    (reference,) = images = shown(predictor, [0])
    predictor.fit(images)
    (calibration,) = others = shown(predictor, [1])
    predictor.calibrate(others, None)
    everything, references = predictor.known(), predictor.known(calibration=False)
    assert everything is not None
    assert references is not None
    for one in (reference, calibration):
        assert everything.find(one.identity) == one.identity
    assert references.find(reference.identity) == reference.identity
    assert references.find(calibration.identity) is None
