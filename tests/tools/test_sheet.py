"""The contact sheet: one scale for all maps, verdicts in words, contours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_clipad.tools.sheet import Tile, draw, heat, write_sheet


def tile(level: float = 0.2, score: float = 0.3, broken: bool = False, verdict: bool = False) -> Tile:
    square = np.zeros((50, 50), bool)
    square[10:20, 10:20] = True
    none = np.zeros_like(square)
    image, level_map = np.full((50, 50, 3), 100, np.uint8), np.full((50, 50), level, np.float32)
    return Tile("part", image, square if broken else none, level_map, square if verdict else none, score, verdict)


def test_the_colour_of_a_value_does_not_depend_on_the_other_values() -> None:
    calm, alarming = np.float32([[0.1, 0.2]]), np.float32([[0.2, 0.9]])
    assert (heat(calm)[0, 1] == heat(alarming)[0, 0]).all()


def test_the_scale_ends_at_zero_and_one() -> None:
    blue, green, red = heat(np.float32([[0, 0.5, 1]]))[0].astype(int)
    assert blue.argmax() == 2
    assert green.argmax() == 1
    assert red.argmax() == 0
    assert (heat(np.float32([[-1, 2]])) == heat(np.float32([[0, 1]]))).all()


def test_a_flat_calm_map_does_not_glow() -> None:
    calm, alarmed = (draw(tile(level))[26:226, 216:416].mean(axis=(0, 1)) for level in (0.1, 0.9))
    assert calm[2] > 2 * calm[0]
    assert alarmed[0] > 2 * alarmed[2]


@pytest.mark.parametrize(
    ("broken", "verdict", "words"),
    [
        (False, False, "0.30 good"),
        (False, True, "0.30 defective, a false alarm"),
        (True, False, "0.30 good, missed"),
        (True, True, "0.30 defective"),
    ],
)
def test_the_verdict_says_what_is_wrong(broken: bool, verdict: bool, words: str) -> None:
    assert tile(broken=broken, verdict=verdict).verdict == words


def test_defect_and_finding_are_outlined_in_colours_of_their_own() -> None:
    plain, outlined = draw(tile()), draw(tile(broken=True, verdict=True))
    left, right = outlined[26:226, 8:208], outlined[26:226, 216:416]
    assert (left == (0, 255, 0)).all(axis=2).any()
    assert (right == (255, 255, 255)).all(axis=2).any()
    assert not (plain[26:226, 8:208] == (0, 255, 0)).all(axis=2).any()
    assert not (plain[26:226, 216:416] == (255, 255, 255)).all(axis=2).any()


def test_tiles_fill_lines_and_a_legend_follows(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.png", [tile()] * 4, columns=3)
    height, width, _ = draw(tile()).shape
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * width, 2 * height + 40)


def test_no_tiles_are_no_sheet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one tile"):
        write_sheet(tmp_path / "sheet.png", [], columns=2)
    assert not list(tmp_path.iterdir())
