"""The contact sheet: one scale for all maps, verdicts and numbers in words, contours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.tools.sheet import Tile, draw, write_sheet
from anomalib_clipad.verdicts.regions import find_regions

LEFT, RIGHT = (slice(46, 246), slice(8, 208)), (slice(46, 246), slice(216, 416))


def tile(
    level: float = 0.2, broken: bool = False, verdict: bool = False, p_value: float | None = 0.25, limit: float = 0.5
) -> Tile:
    """A part that is broken in a square; the map has a level there and 0.1 elsewhere."""
    square = np.zeros((50, 50), bool)
    square[10:20, 10:20] = True
    found = np.where(square, level, 0.1).astype(np.float32)
    image = np.full((50, 50, 3), 100, np.uint8)
    regions = find_regions(found, limit)
    finding = Finding(image, 0.3, verdict, 0.4, found, regions, p_value, map_threshold=limit)
    return Tile("part/crack/001", finding, square if broken else np.zeros_like(square))


@pytest.mark.parametrize(
    ("broken", "verdict", "words"),
    [
        (False, False, "good"),
        (False, True, "defective: false alarm"),
        (True, False, "good: missed"),
        (True, True, "defective"),
    ],
)
def test_the_verdict_says_what_is_wrong_in_red(broken: bool, verdict: bool, words: str) -> None:
    one = tile(broken=broken, verdict=verdict)
    assert one.verdict == words
    head = draw(one)[:46].reshape(-1, 3).astype(int)
    red, green = ((head[:, a] - head[:, b] > 80).any() for a, b in ((0, 1), (1, 0)))
    assert (red, green) == (broken != verdict, broken == verdict)


def test_numbers_are_score_and_p_value_where_there_is_one() -> None:
    assert tile().numbers == "score 0.300, p-value 0.250"
    assert tile(p_value=None).numbers == "score 0.300"


def test_a_map_is_coloured_by_its_distance_from_the_threshold_of_its_part() -> None:
    calm, alarming, strict = (
        draw(tile(level, limit=limit))[RIGHT] for level, limit in ((0.3, 0.9), (0.8, 0.5), (0.3, 0.15))
    )
    assert (calm == 100).all()
    for found in (alarming, strict):
        assert not (found[50:70, 50:70] == 100).all(axis=2).any()
        assert (found[150:, 150:] == 100).all()


def test_defect_and_finding_are_outlined_in_colours_of_their_own() -> None:
    plain, outlined = draw(tile()), draw(tile(0.9, broken=True, verdict=True))
    assert (outlined[LEFT] == (0, 255, 0)).all(axis=2).any()
    assert (outlined[RIGHT] == (255, 255, 255)).all(axis=2).any()
    assert not (plain[LEFT] == (0, 255, 0)).all(axis=2).any()
    assert not (plain[RIGHT] == (255, 255, 255)).all(axis=2).any()


def test_tiles_fill_lines_and_a_legend_follows(tmp_path: Path) -> None:
    for legend in ("calibrated on one", "calibrated on all"):
        write_sheet(tmp_path / f"{legend}.png", [tile()] * 4, 3, legend)
    height, width, _ = draw(tile()).shape
    first, second = (np.asarray(Image.open(path)) for path in sorted(tmp_path.iterdir()))
    assert first.shape == (2 * height + 48, 3 * width, 3)
    assert (first[: 2 * height] == second[: 2 * height]).all()
    assert (first[2 * height :] != second[2 * height :]).any()


def test_no_tiles_are_no_sheet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one tile"):
        write_sheet(tmp_path / "sheet.png", [], 2, "")
    assert not list(tmp_path.iterdir())
