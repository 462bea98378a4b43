"""Pictures become parts by their names, and a run has a table of parts."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import shallow
from pictures import noise, write

from anomalib_clipad.inspection.parts import PART_COLUMNS, PartNames, PartRule
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.verdicts.parts import NormalParts

PATTERN = "{part}_{view}.png"
MODEL = shallow()


def calibrated(parts: int = 19, rate: float | None = 0.05, leave: str = "", **more: str) -> NormalScores:
    """Views whose scores lie apart: those of the right one are ten times as high."""
    names = [f"n{part}_{view}.png" for part in range(parts) for view in ("left", "right")]
    names = [more.get(name.removesuffix(".png"), name) for name in names if name != leave]
    scores = [(1 + index) / 1000 * (10 if "right" in name else 1) for index, name in enumerate(names)]
    return NormalScores(np.array(scores), np.array(scores), rate, identities=tuple({"name": name} for name in names))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        (PATTERN, "bolt_left.png", ("bolt", "left")),
        (PATTERN, "a/bolt_07_left.png", ("a/bolt_07", "left")),
        (PATTERN, "/a/bolt_left.png", ("/a/bolt", "left")),
        (PATTERN, "bolt_left.jpg", None),
        (PATTERN, "boltleft.png", None),
        ("{part}_{view}", "bolt_left.v2.jpg", ("bolt", "left.v2")),
        ("{view}/{part}", "day/left/bolt.tif", ("day/bolt", "left")),
        ("{part}/{view}.png", "day/bolt/left.png", ("day/bolt", "left")),
        ("{view}-[{part}].png", "x-[7].png", ("7", "x")),
    ],
)
def test_a_picture_is_known_by_the_end_of_its_path(pattern: str, path: str, found: tuple[str, str] | None) -> None:
    assert PartNames(pattern).of(path) == found


@pytest.mark.parametrize("pattern", ["{part}.png", "{view}", "{part}_{part}_{view}", "{part}_{side}.png", "x"])
def test_a_pattern_names_part_and_view(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"has \{part\} and \{view\}, each once"):
        PartNames(pattern)


def test_each_view_is_ranked_among_its_own() -> None:
    rule = PartRule.of(PATTERN, calibrated())
    assert rule.judge("a", {"left": 0.02, "right": 0.2}).verdict == "good"
    found = rule.judge("a", {"left": 0.2, "right": 0.2})  # usual for the right view, and not for the left one
    assert (found.verdict, found.view, found.p_value) == ("defective", "left", pytest.approx(0.05))


def test_a_part_with_another_set_of_views_is_to_be_looked_at() -> None:
    rule = PartRule.of(PATTERN, calibrated())
    assert rule.judge("a", {"left": 9.0}).remark == "no picture of right"
    assert rule.judge("a", {"left": 0.0, "right": 0.0, "top": 0.0}).remark == "not calibrated: top"
    assert {rule.judge("a", scores).verdict for scores in ({"left": 9.0}, {}, {"top": 0.0})} == {"look"}


def test_the_last_picture_of_a_view_counts_and_parts_keep_their_order() -> None:
    rule = PartRule.of(PATTERN, calibrated())
    seen = [("b_left.png", 9.0), ("a_left.png", 0.0), ("b_right.png", 0.0), ("other.png", 9.0), ("b_left.png", 0.0)]
    assert [(part.name, part.verdict) for part in rule.parts(seen)] == [("b", "good"), ("a", "look")]


@pytest.mark.parametrize(
    ("normal", "message"),
    [
        (None, "Parts are judged at a false-alarm rate"),
        (calibrated(rate=None), "Parts are judged at a false-alarm rate"),
        (calibrated(leave="n3_left.png"), "here in left, right; but n3 lack a view"),
        (calibrated(n3_left="strange.png"), "lack a view"),
        (calibrated(n3_left="x.png", n3_right="y.png"), "but there are others"),
        (calibrated(parts=18), "for parts takes 19 normal parts or more"),
    ],
)
def test_a_calibration_that_is_none_of_parts_is_refused(normal: NormalScores | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartRule.of(PATTERN, normal)


def test_a_run_has_a_table_of_parts(run: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def draw(folder: str, parts: int, first: int) -> None:
        found = write(Path(folder), *(noise(first + index, 40, 50) // 4 + 90 for index in range(2 * parts)))
        for index, path in enumerate(sorted(found.iterdir(), key=lambda path: int(path.stem))):
            path.rename(found / f"p{index // 2}_{('left', 'right')[index % 2]}.png")

    draw("normal", 9, 100)
    draw("new", 3, 200)
    Path("new/p1_right.png").write_bytes(b"no picture")
    write(Path("black"), np.zeros((40, 50, 3), np.uint8))
    Path("black/0.png").rename("new/p2_left.png")
    model = ("--class-name", "nut", "--backbone", MODEL["backbone"], "--pretrained", MODEL["pretrained"])
    rest = ("--calibration", "normal", "--false_alarm_rate", "0.1", "--part", PATTERN, "--output", "out")
    with pytest.raises(SystemExit):  # one cannot be read
        run("inspect", "new", *model, *rest)
    rows = table(Path("out/parts.csv"))
    assert list(rows[0]) == list(PART_COLUMNS)
    assert [(row["part"], row["views"]) for row in rows] == [("new/p0", "2"), ("new/p1", "1"), ("new/p2", "2")]
    assert (rows[1]["verdict"], rows[1]["remark"]) == ("look", "no picture of right")
    said = capsys.readouterr().out
    assert "3 parts: " in said
    assert "1 to look at" in said
    assert "new/p1: look, no picture of right" in Path("out/index.html").read_text()
    with pytest.raises(SystemExit, match="part"):
        run("inspect", "new", *model, *rest[:-3], "{part}_{view}", "--output", "out", "--resume", "true")


def test_parts_are_named_where_no_picture_of_them_can_be_read(tmp_path: Path) -> None:
    from anomalib_clipad.inspection.results import Results

    rule = PartRule(PartNames(PATTERN), NormalParts(np.zeros((9, 2)), ("left", "right")), 0.1)
    with Results(tmp_path / "out", parts=rule) as results:
        results.fail("lost_left.png", "damaged")
        (said,) = results.finish().parts
    assert said.startswith("1 parts: 0 defective, 1 to look at, 0 good, at 10 % false alarms of parts")
    (row,) = table(tmp_path / "out/parts.csv")
    assert (row["part"], row["remark"]) == ("lost", "no picture of left, right")
