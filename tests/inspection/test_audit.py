"""An audit: what is drawn, the page without scores, the ticks that count and those that do not, what they say."""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import save
from scipy.stats import beta
from stand_ins import Brightness

from anomalib_clipad.data.ticks import Audit, read_ticks
from anomalib_clipad.inspection import inspector
from anomalib_clipad.inspection.audit import write_audit
from anomalib_clipad.inspection.dependencies import about_of
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.sources import find
from anomalib_clipad.lab.bench.browser import Browser
from anomalib_clipad.tools import cli
from anomalib_clipad.verdicts.proportion import interval

NUMBER_OF_IMAGES = 60
RATES = {"false_alarm_rate": 0.1, "miss_rate": 0.1}
EVERY_THIRD = range(0, NUMBER_OF_IMAGES, 3)


def grey(level: float, seed: int) -> np.ndarray:
    """Noise around a level of brightness, which is its score."""
    noise = np.random.default_rng(seed).integers(-20, 21, (32, 32, 3))
    return np.clip(255 * level + noise, 0, 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of sixty images, every third of which is bright: a defect."""
    monkeypatch.chdir(tmp_path)
    for number in range(NUMBER_OF_IMAGES):
        level = 0.45 + number / 200 if number in EVERY_THIRD else 0.3
        save(Path(f"in/{number:02}.png"), grey(level, 1000 + number))
    for number, level in enumerate(np.linspace(0.2, 0.5, 9)):
        save(Path(f"good/{number}.png"), grey(level, number))


def drawn(page: Path) -> list[list[Any]]:
    """The rows of a page."""
    blocks = re.findall(r'class="rows">(.*?)</script>', page.read_text())
    return [row for block in blocks for row in json.loads(block)]


def audit(count: int = 30, seed: int = 0, output: str = "audit") -> Path:
    write_audit(Path(output), find(["in"]), count, seed, overwrite=True)
    return Path(output, "index.html")


def ticked(page: Path, **changed: Any) -> Path:
    """The ticks of one who sees which are bright, as the page writes them; and some that are changed."""
    said = json.loads(re.findall(r'id="settings">(.*?)</script>', page.read_text())[0])["audit"]
    rows = []
    for cells in drawn(page):
        truth = "defective" if int(Path(cells[0]).stem) in EVERY_THIRD else "good"
        rows.append({"path": cells[0], "score": "", "truth": truth, "digest": cells[-1], "audit": said})
    rows = changed.pop("rows", lambda rows: rows)(rows)
    with Path("ticks.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name not in changed.get("without", ())])
        writer.writeheader()
        writer.writerows({name: row[name] for name in writer.fieldnames} for row in rows)
    return Path("ticks.csv")


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Inspectors around a model that scores images by their brightness."""

    def around(**options: Any) -> Inspector:
        monkeypatch.setattr(inspector, "_predictor", lambda *_: Brightness())
        return Inspector(**options)

    return around


# The draw


def test_images_are_drawn_by_the_seed_alone_each_as_likely_as_another() -> None:
    first = [row[0] for row in drawn(audit(30))]
    assert first == [row[0] for row in drawn(audit(30, output="again"))] != sorted(first)
    assert len(set(first)) == 30
    assert [row[0] for row in drawn(audit(30, seed=1))] != first
    times = np.zeros(NUMBER_OF_IMAGES)
    for seed in range(40):
        for row in drawn(audit(15, seed)):
            times[int(Path(row[0]).stem)] += 1
    assert times.sum() == 40 * 15
    assert times.max() <= 22  # binomial: 10 on average, 22 in 1 of 20,000
    assert times[:30].sum() == pytest.approx(300, abs=4 * np.sqrt(40 * 15 / 4))


def test_the_page_has_no_scores_and_says_where_its_images_come_from() -> None:
    page = audit(1000)
    assert len(drawn(page)) == NUMBER_OF_IMAGES
    assert all(row[1] is None and row[2] is None for row in drawn(page))
    assert "seed 0, 60 of 60 images, list " in page.read_text()
    with pytest.raises(FileNotFoundError, match="output folder of an inspection"):
        next(find(["audit"]))


def test_what_cannot_be_read_is_passed_over_and_others_are_drawn_in_its_place() -> None:
    Path("in/00.png").write_text("no image")
    found, passed = write_audit(Path("audit"), find(["in"]), 1000, 0)
    assert (found.drawn, found.of) == (59, 59)
    assert len(passed) == 1
    assert "00.png" in passed[0]
    for options, words in (({"count": 0}, "audit has to be"), ({"count": 1, "seed": -1}, "audit_seed has to be")):
        with pytest.raises(ValueError, match=words):
            write_audit(Path("other"), find(["in"]), **options)
    with pytest.raises(ValueError, match="no image to audit that can be read"):
        write_audit(Path("other"), find(["in/00.png"]), 5)
    with pytest.raises(FileExistsError, match="results of an earlier run"):
        write_audit(Path("audit"), find(["in"]), 5)


# The ticks


def test_ticks_of_an_audit_are_its_defects() -> None:
    page = audit(30)
    expected = {Path(row[0]) for row in drawn(page) if int(Path(row[0]).stem) in EVERY_THIRD}
    found = read_ticks(ticked(page))
    assert set(found.defects) == expected
    assert (found.audit.seed, found.audit.drawn, found.audit.of) == (0, 30, NUMBER_OF_IMAGES)
    assert Audit.of_text(str(found.audit)) == found.audit
    assert set(read_ticks(ticked(page, rows=lambda rows: rows[::-1])).defects) == expected  # sorted by a spreadsheet


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"without": ("audit", "digest")}, r"not, or not all, of one audit.*top of a sorted list void it.*--audit 200"),
        ({"rows": lambda rows: rows[1:]}, "are not the 30 that were drawn"),
        (
            {"rows": lambda rows: [{**row, "audit": row["audit"].replace("30 of", "25 of")} for row in rows]},
            "are not the 25 that were drawn",
        ),
        ({"rows": lambda rows: [*rows, {**rows[0], "digest": "0" * 32}]}, "are not the 30 that were drawn"),
        ({"rows": lambda rows: [*rows[1:], {**rows[0], "digest": "0" * 32}]}, "some were added or left out"),
        ({"rows": lambda rows: [*rows[1:], {**rows[0], "audit": ""}]}, "not, or not all, of one audit"),
        (
            {"rows": lambda rows: [{**row, "truth": ""} if row is rows[3] else row for row in rows]},
            "1 of the 30 .* Tick",
        ),
    ],
)
def test_other_ticks_are_refused_with_the_reason(change: dict[str, Any], words: str, around: Any) -> None:
    with pytest.raises(ValueError, match=words):
        around(calibration="good", defects=ticked(audit(30), **change), **RATES)


def test_a_defect_that_was_replaced_or_has_gone_is_refused() -> None:
    ticks = ticked(audit(60))
    save(Path("in/03.png"), grey(0.9, 5))
    with pytest.raises(ValueError, match=r"03\.png, .* is no longer the image that was drawn"):
        read_ticks(ticks)
    Path("in/03.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"03\.png, .* is not there"):
        read_ticks(ticks)


def test_a_name_that_a_spreadsheet_would_compute_is_found() -> None:
    save(Path("=1.png"), grey(0.8, 3))
    write_audit(Path("audit"), find(["=1.png"]), 1)

    def guarded(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{**rows[0], "path": f"'{rows[0]['path']}", "truth": "defective"}]

    page = Path("audit/index.html")
    (cells,) = drawn(page)
    said = json.loads(re.findall(r'id="settings">(.*?)</script>', page.read_text())[0])["audit"]
    rows = guarded([{"path": cells[0], "digest": cells[-1], "audit": said}])
    with Path("ticks.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert read_ticks(Path("ticks.csv")).defects == (Path("=1.png"),)


# What they say


def test_the_verdicts_are_those_of_the_same_defects_in_a_folder(around: Any) -> None:
    ticks = ticked(audit(50))
    known = read_ticks(ticks).defects
    own = around(calibration="good", defects=ticks, **RATES)
    other = around(calibration="good", defects=list(known), **RATES)
    for seed, level in enumerate((0.25, 0.42, 0.49, 0.6, 0.8)):
        assert own.inspect(grey(level, seed)).verdict == other.inspect(grey(level, seed)).verdict


@pytest.mark.parametrize(("count", "of"), [(0, 200), (3, 12), (12, 200), (200, 200)])
def test_intervals_are_those_of_clopper_and_pearson(count: int, of: int) -> None:
    """By the Beta distribution; scipy's own formula is another."""
    low = beta.ppf(0.025, count, of - count + 1) if count else 0
    high = beta.ppf(0.975, count + 1, of - count) if count < of else 1
    assert interval(count, of) == pytest.approx((low, high))


def test_an_audit_says_how_many_defects_there_are_and_how_many_are_missed(around: Any) -> None:
    """Also without a miss rate, and of no defect at all."""
    ticks = ticked(audit(30))
    known = read_ticks(ticks)
    own = around(calibration="good", defects=ticks, threshold=0.6)
    count = len(known.defects)
    missed = sum(not finding.label for finding in own.inspect(map(str, known.defects)))
    assert 0 < missed < count
    first, second = own.audited
    low, high = (100 * edge for edge in interval(count, 30))
    assert f"{count} of 30 images are defective: {100 * count / 30:.3g} %, between {low:.1f} and {high:.1f} %" in first
    assert f"that is {round(0.6 * low)} to {round(0.6 * high)} of 60." in first
    assert f"Of {count} known defects {missed} are not called defective now: {100 * missed / count:.3g} %" in second
    assert about_of(own, "inspect")["decision"].endswith(f"{first} {second}")
    assert own.inspect(grey(0.5, 3)).verdict is None
    own.decide_by(threshold=0.99)
    assert f"Of {count} known defects {count} are not called" in own.audited[1]
    none = around(
        calibration="good",
        threshold=0.6,
        defects=ticked(audit(30), rows=lambda rows: [{**r, "truth": "good"} for r in rows]),
    )
    (said,) = none.audited
    assert "0 of 30 images are defective: 0 %, between 0.0 and 11.6 %" in said
    assert "all images there were" in around(calibration="good", threshold=0.6, defects=ticked(audit(60))).audited[0]


def test_too_few_defects_are_said_with_how_many_images_it_takes(around: Any) -> None:
    ticks = ticked(audit(12))
    count = len(read_ticks(ticks).defects)
    assert 0 < count < 9
    with pytest.raises(ValueError, match=rf"there are {count}\..* it takes about {-(-9 * 12 // count)} images"):
        around(calibration="good", defects=ticks, **RATES)


# The command and the page


def test_the_command_writes_an_audit_and_refuses_what_it_would_pass_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def inspect(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["anomalib-clipad", "inspect", "in", *arguments])
        cli.main()

    inspect("--audit", "7", "--audit-seed", "3", "--output", "found", "--max-pixels", "5000")
    assert "7 of 60 images, drawn by seed 3. Open found/index.html" in capsys.readouterr().out
    assert len(drawn(Path("found/index.html"))) == 7
    for more, words in (
        (["--backbone", "clipad-mini"], "scores none: leave out --backbone"),
        (["--miss-rate", "0.1", "--coco", "--resume"], "leave out --miss_rate, --coco, --resume"),
        (["--engine", "ray"], "leave out --engine"),
    ):
        with pytest.raises(SystemExit, match=words):
            inspect("--audit", "7", "--output", "other", *more)
    with pytest.raises(SystemExit, match="pass --audit 200 with it"):
        inspect("--audit-seed", "7")
    with pytest.raises(SystemExit, match="audit has to be an integer, 1 or more"):
        inspect("--audit", "0")


@pytest.mark.slow
def test_ticks_of_the_page_are_those_that_are_read(browser: Browser, tmp_path: Path) -> None:
    page = audit(5)
    tab = browser.tab()
    tab.go(page.absolute().as_uri())
    assert tab.evaluate("document.querySelector('.scores').checkVisibility()") is False
    assert tab.evaluate("document.getElementById('summary').textContent") == "5 images, drawn at random"
    tiles = tab.evaluate("[...document.querySelectorAll('.tile')].map(tile => tile.textContent).join()")
    assert "no number" not in tiles
    paths = tab.evaluate("[...document.querySelectorAll('.tile button')].map(button => button.title)")
    assert paths == [row[0] for row in drawn(page)]
    tab.evaluate("document.querySelector('.tile button').focus()")
    tab.press("1")
    tab.settle()
    assert tab.evaluate("document.getElementById('ticked').textContent").endswith("4 still to tick")
    for _ in range(4):
        tab.press("ArrowRight")
        tab.press("2")
    tab.settle()
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
    tab.click("#download")
    tab.until("true")
    file = tmp_path / "downloads/ticks.csv"
    for _ in range(100):
        if file.exists():
            break
        tab.settle()
    found = read_ticks(file)
    assert found.defects == (Path(paths[0]),)
    assert found.audit.drawn == 5
