"""What a finding shows and tells, and how regions are found."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import find_objects, label

from anomalib_clipad.inspection.finding import Finding, centred
from anomalib_clipad.verdicts.regions import find_regions


def _finding(peak: float, threshold: float = 0.5) -> Finding:
    picture = np.full((60, 90, 3), 120, np.uint8)
    anomaly_map = np.full((20, 30), 0.1, np.float32)
    anomaly_map[5:10, 12:20] = peak
    from anomalib_clipad.inspection.finding import at_size

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
