"""What a finding shows and tells, and how regions are found."""

import json
import pickle
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import find_objects, label

from anomalib_clipad.inspection.finding import Finding, at_size, centred
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.verdicts.regions import find_regions


def _finding(peak: float, threshold: float = 0.5) -> Finding:
    picture = np.full((60, 90, 3), 120, np.uint8)
    anomaly_map = np.full((20, 30), 0.1, np.float32)
    anomaly_map[5:10, 12:20] = peak
    regions = find_regions(at_size(anomaly_map, (60, 90)), threshold)
    return Finding(
        picture, peak, peak > threshold, threshold, anomaly_map, regions, None, "nut", Path("a/b.png"), threshold
    )


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(5))
def test_regions_are_scipys(seed: int, threshold: float) -> None:
    values = np.random.default_rng(seed).random((12, 17)).astype(np.float32)
    numbers, count = label(values > threshold, np.ones((3, 3)))
    expected = sorted(
        (
            (x.start, y.start, x.stop - x.start, y.stop - y.start),
            int((numbers == number).sum()),
            float(values[numbers == number].max()),
        )
        for number, (y, x) in enumerate(find_objects(numbers), 1)
    )
    found = find_regions(values, threshold)
    assert len(found) == count
    assert sorted((region.box, region.area, region.peak) for region in found) == expected
    assert [region.peak for region in found] == sorted((region.peak for region in found), reverse=True)


def test_small_regions_do_not_count_and_nan_does() -> None:
    values = np.zeros((8, 8), np.float32)
    values[1, 1], values[4:7, 4:7] = 0.9, 0.8
    assert [region.area for region in find_regions(values, 0.5)] == [1, 9]
    assert [region.area for region in find_regions(values, 0.5, min_area=2)] == [9]
    values[0, 7] = np.nan
    assert len(find_regions(values, 0.5)) == 3
    assert len(find_regions(values, np.inf)) == 1  # where a rate allows no other verdict


def test_regions_that_do_not_count_are_not_in_the_mask() -> None:
    """Nor where they lie in the box of one that does."""
    values = np.zeros((9, 9), np.float32)
    values[:, 0] = values[8] = 0.9
    values[2, 5] = values[0, 8] = 0.95
    kept = find_regions(values, 0.5, min_area=2)
    assert [region.area for region in kept] == [17]
    assert kept[0].box == (0, 0, 9, 9)
    np.testing.assert_array_equal(kept.mask, values == np.float32(0.9))
    np.testing.assert_array_equal(find_regions(values, 0.5).mask, values > 0.5)
    picture = np.full((9, 9, 3), 120, np.uint8)
    whole, some = (Finding(picture, 0.9, True, 0.5, values, find_regions(values, 0.5, least)) for least in (0, 2))
    np.testing.assert_array_equal(some.mask, kept.mask)
    np.testing.assert_array_equal(whole.mask, values > 0.5)
    assert not Finding(picture, 0.9, True, 0.5, values, find_regions(values, 0.5, 18)).mask.any()
    values[2:7, 2] = values[6, 2:7] = 0.7  # another one, with a corner of a larger region in its box
    values[0:5, 4:9] = 0.8
    np.testing.assert_array_equal(
        find_regions(values, 0.5, min_area=10).mask, (values > 0.5) & (values != np.float32(0.7))
    )
    again = pickle.loads(pickle.dumps(kept))
    assert again == kept
    np.testing.assert_array_equal(again.mask, kept.mask)


def test_a_region_with_pixels_that_are_no_numbers_is_told_by_the_others() -> None:
    values = np.zeros((8, 8), np.float32)
    values[1:3, 1:3], values[5, 5:7], values[7, 0] = 0.9, (0.75, np.nan), np.nan
    alone, mixed, plain = find_regions(values, 0.5, p_value=NormalScores(np.zeros(9), np.full(9, 0.95)).region_p_value)
    assert (alone.area, alone.peak, alone.mean, alone.p_value) == (1, np.inf, np.inf, 0.1)
    assert (mixed.box, mixed.area, mixed.peak, mixed.mean, mixed.p_value) == ((5, 5, 2, 1), 2, 0.75, 0.75, 0.1)
    assert (plain.area, plain.p_value) == (4, 1)
    assert plain.mean == pytest.approx(0.9)


def test_a_map_with_nan_is_drawn_and_stays_ignored_where_it_is() -> None:
    values = np.full((6, 8), 0.1, np.float32)
    values[0, 0] = np.nan
    ignored = np.zeros((6, 8), bool)
    ignored[4:] = True
    large = at_size(values, (6, 8), ignored)
    assert np.isnan(large[0, 0])
    np.testing.assert_array_equal(large[4:], np.float32(0))
    assert centred(values, 0.5)[0, 0] == 1
    finding = Finding(np.full((6, 8, 3), 120, np.uint8), np.nan, True, 0.5, values, find_regions(values, 0.5))
    assert finding.mask.sum() == 1
    assert np.abs(np.asarray(finding.overlay())[4, 6].astype(int) - 120).max() <= 1


def test_map_and_mask_have_the_size_of_the_image() -> None:
    finding = _finding(0.9)
    assert finding.map.shape == finding.mask.shape == (60, 90)
    (region,) = finding.regions
    left, top, width, height = region.box
    assert finding.mask[top : top + height, left : left + width].sum() == region.area == finding.mask.sum()


def test_colours_have_the_threshold_in_their_middle_so_a_good_part_looks_calm() -> None:
    good, bad = (np.asarray(_finding(peak).overlay()).astype(int) for peak in (0.2, 0.95))
    assert np.abs(good - 120).max() <= 1
    assert np.abs(bad - 120).max() > 60
    same = [np.asarray(_finding(peak, threshold).overlay()) for peak, threshold in ((0.75, 0.5), (0.85, 0.7))]
    assert np.abs(same[0][20:25, 45:50].astype(int) - same[1][20:25, 45:50]).max() <= 2
    assert centred(np.array([0.3], np.float32), 0.3)[0] == pytest.approx(0.5)


def test_it_shows_itself_in_a_notebook_and_tells_itself_as_json() -> None:
    finding = _finding(0.9)
    assert Image.open(BytesIO(finding._repr_png_())).size == (90, 60)
    told = json.loads(json.dumps(finding.to_dict()))
    assert (told["path"], told["label"], told["width"]) == ("a/b.png", True, 90)
    assert told["regions"][0]["area"] == finding.regions[0].area


def test_a_small_overlay_is_the_overlay_in_small_and_loses_no_region() -> None:
    pixels = np.full((400, 600, 3), 120, np.uint8)
    anomaly_map = np.full((40, 60), 0.1, np.float32)
    anomaly_map[5:15, 20:40] = 0.95
    ignored = np.zeros((400, 600), np.bool_)
    ignored[300:] = True
    finding = Finding(pixels, 0.95, True, 0.5, anomaly_map, find_regions(at_size(anomaly_map, (400, 600)), 0.5))
    for one in (finding, replace(finding, ignored=ignored)):
        small = one.small_overlay(pixels[::4, ::4])
        assert small.shape == (100, 150, 3)
        large = np.asarray(one.overlay().resize((150, 100), Image.Resampling.BOX), np.float32)
        assert np.abs(small - large).mean() < 3
        assert np.abs(small.astype(int)[80] - 120).max() == 0
    dot = np.full((400, 600), 0.1, np.float32)
    dot[101, 301] = 0.9
    tiny = Finding(pixels, 0.9, True, 0.5, dot, find_regions(dot, 0.5))
    assert (tiny.small_overlay(pixels[::4, ::4]) == 255).all(axis=2).any()
