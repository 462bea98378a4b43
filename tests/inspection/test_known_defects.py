"""Three verdicts of an inspector and of a run: what they are, where they are written, what is refused."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import save, shallow
from pyarrow import parquet
from stand_ins import Brightness

from anomalib_clipad import Inspector
from anomalib_clipad.inspection import inspector
from anomalib_clipad.inspection.dependencies import depends_on
from anomalib_clipad.inspection.parts import PartRule
from anomalib_clipad.inspection.records import read_results
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.tools import cli

RATES = {"false_alarm_rate": 0.1, "miss_rate": 0.1}


def grey(level: float, seed: int) -> np.ndarray:
    """Noise around a level of brightness, which is its score."""
    noise = np.random.default_rng(seed).integers(-20, 21, (32, 32, 3))
    return np.clip(255 * level + noise, 0, 255).astype(np.uint8)


def greys(low: float, high: float, count: int, seed: int) -> list[np.ndarray]:
    return [grey(level, seed + number) for number, level in enumerate(np.linspace(low, high, count))]


NORMAL, DEFECTS = greys(0.2, 0.5, 9, 100), greys(0.4, 0.8, 9, 200)
GOOD, LOOK, BAD = grey(0.3, 1), grey(0.45, 2), grey(0.6, 3)


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Inspectors around a model that scores images by their brightness."""

    def around(model: Any = None, **options: Any) -> Inspector:
        model = model or Brightness()
        monkeypatch.setattr(inspector, "_predictor", lambda *_: model)
        return Inspector(**options)

    return around


def test_an_image_is_good_defective_or_to_look_at(around: Any) -> None:
    """The label stays that of the false-alarm rate."""
    own = around(calibration=NORMAL, defects=DEFECTS, **RATES)
    findings = list(own.inspect([GOOD, LOOK, BAD]))
    assert [one.verdict for one in findings] == ["good", "look", "defective"]
    assert [one.label for one in findings] == [False, False, True]
    assert [one.to_dict()["verdict"] for one in findings] == ["good", "look", "defective"]
    two = around(calibration=NORMAL, false_alarm_rate=0.1)
    for finding, other in zip(findings, two.inspect([GOOD, LOOK, BAD]), strict=True):
        assert (other.score, other.label, other.p_value, other.verdict) == (
            finding.score,
            finding.label,
            finding.p_value,
            None,
        )


def test_what_is_rare_on_both_sides_is_to_look_at_though_its_label_is_defective(around: Any) -> None:
    own = around(calibration=NORMAL, defects=greys(0.7, 0.9, 9, 200), **RATES)
    finding = own.inspect(BAD)
    assert (finding.verdict, finding.label) == ("look", True)


def test_the_decision_says_both_promises(around: Any) -> None:
    said = around(calibration=NORMAL, defects=DEFECTS, **RATES).decision.text
    assert "10 % false alarms, from 9 images" in said
    assert "10 % of defects called good, from 9 known ones; at most 28.3 % with 95 % confidence" in said


def test_the_notes_name_the_defect_on_which_it_hangs_what_is_good(around: Any) -> None:
    own = around(calibration=NORMAL, defects=DEFECTS, **RATES)
    said = own.notes[-1]
    assert "one known defect alone, the least suspicious of 9: defects 1. If it shows none, tick it good" in said
    assert "From 19 defects on no single one decides" in said
    own.decide_by(threshold=0.5)
    assert not any("known defect" in note for note in own.notes)
    more = around(calibration=NORMAL, defects=greys(0.4, 0.8, 19, 200), **RATES)
    assert not any("known defect" in note for note in more.notes)


def test_where_something_is_ignored_peaks_are_compared(around: Any) -> None:
    mask = np.zeros((32, 32), bool)
    mask[:16] = True
    half = [np.concatenate([np.full((16, 32, 3), 255, np.uint8), one[16:]]) for one in (GOOD, LOOK, BAD)]
    own = around(calibration=NORMAL, defects=DEFECTS, ignore=mask, **RATES)
    assert [one.verdict for one in own.inspect(half)] == ["good", "look", "defective"]
    model = own.model
    with pytest.raises(ValueError, match="calibrated on all of each image, and now a part is ignored"):
        around(model, ignore=mask, false_alarm_rate=0.1)
    with pytest.raises(ValueError, match="scored with all of each image, and now a part is ignored"):
        around(model, ignore=mask, calibration=NORMAL, false_alarm_rate=0.1)


def test_a_calibration_on_all_of_each_image_gives_no_p_values_where_a_part_is_ignored(around: Any) -> None:
    model, mask = around(calibration=NORMAL, false_alarm_rate=0.1).model, np.zeros((32, 32), bool)
    mask[:16] = True
    assert around(model, ignore=mask, threshold=0.5).inspect(BAD).p_value is None
    assert around(model, ignore=mask, calibration=NORMAL, false_alarm_rate=0.1).inspect(BAD).p_value is not None


def test_a_threshold_in_place_of_the_rates_has_no_verdicts(around: Any) -> None:
    own = around(calibration=NORMAL, defects=DEFECTS, **RATES)
    own.decide_by(threshold=0.5)
    assert [one.verdict for one in own.inspect([GOOD, BAD])] == [None, None]
    own.decide_by(false_alarm_rate=0.5)
    assert own.inspect(LOOK).verdict == "defective"


def test_a_model_keeps_its_known_defects_at_another_rate_and_with_another_calibration(around: Any) -> None:
    model = around(calibration=NORMAL, defects=DEFECTS, **RATES).model
    low = grey(0.405, 4)  # one of nine known defects scores as low
    assert around(model, false_alarm_rate=0.1).inspect(low).verdict == "look"
    assert around(model, false_alarm_rate=0.1, miss_rate=0.2).inspect(low).verdict == "good"
    others = greys(0.1, 0.35, 9, 300)
    again = around(model, calibration=others, **RATES)
    assert again.inspect(LOOK).verdict == "defective"
    with pytest.raises(ValueError, match=r"calibration image .* is also a|known defect .* is also a"):
        around(model, calibration=[*others, DEFECTS[0]], **RATES)


def test_known_defects_are_no_other_images(around: Any) -> None:
    """By content, and copies count once."""
    with pytest.raises(ValueError, match=r"known defect defects 1 is also a calibration image \(calibration 3\)"):
        around(calibration=NORMAL, defects=[NORMAL[2], *DEFECTS], **RATES)
    with pytest.raises(ValueError, match=r"known defect defects 2 is also a reference \(references 1\)"):
        Inspector("nut", **shallow(), references=[DEFECTS[1]], calibration=NORMAL, defects=DEFECTS, **RATES)
    with (
        pytest.warns(UserWarning, match="Copies of an image count once"),
        pytest.raises(ValueError, match="there are 8"),
    ):
        around(calibration=NORMAL, defects=[*DEFECTS[:8], DEFECTS[0]], **RATES)


def test_a_known_defect_among_the_scored_images_is_noticed(around: Any) -> None:
    own = around(calibration=NORMAL, defects=DEFECTS, **RATES)
    with pytest.warns(UserWarning, match="is, or looks like, the known defect defects 3"):
        finding = own.inspect(DEFECTS[2])
    assert "nothing can be said about it" in finding.remark


def test_what_cannot_be_is_refused(around: Any) -> None:
    for options, words in (
        ({"miss_rate": 0.1, "false_alarm_rate": 0.1, "calibration": NORMAL}, "miss_rate takes known defects"),
        ({"defects": DEFECTS, "false_alarm_rate": 0.1, "calibration": NORMAL}, "pass miss_rate too"),
        ({"defects": DEFECTS, "miss_rate": 0.1}, "nothing sets the first: pass calibration"),
        ({"defects": DEFECTS, "miss_rate": 0.1, "threshold": 0.5}, "follow two rates"),
        ({"defects": DEFECTS, "miss_rate": 1.5, "false_alarm_rate": 0.1}, "miss_rate has to be a share"),
        ({"defects": DEFECTS, "miss_rate": 0.05, "false_alarm_rate": 0.1, "calibration": NORMAL}, "takes 19 known"),
        ({"defects": [], "calibration": NORMAL, **RATES}, "no images in defects"),
        ({"defects": DEFECTS, "mutual": NORMAL, "miss_rate": 0.1}, "cannot be used with defects, miss_rate"),
    ):
        with pytest.raises(ValueError, match=words):
            around(**options)
    model = around(calibration=NORMAL, false_alarm_rate=0.1).model
    model.keep_normal(inspector.replace(model.normal, rate=None))
    with pytest.raises(ValueError, match="second of two rates"):
        around(model, defects=DEFECTS, miss_rate=0.1)
    names = tuple({"name": f"p{number}_left.png"} for number in range(9))
    three = around(calibration=NORMAL, defects=DEFECTS, **RATES).model.normal
    with pytest.raises(ValueError, match="leave out miss_rate and defects, or part"):
        PartRule.of("{part}_{view}", inspector.replace(three, identities=names))


def test_a_run_depends_on_the_content_of_its_known_defects(around: Any) -> None:
    digests = [
        depends_on(around(calibration=NORMAL, defects=known, **RATES), {"defects": "folder"})["defects"]
        for known in (DEFECTS, DEFECTS, [*DEFECTS[:8], grey(0.9, 9)])
    ]
    assert digests[0] == digests[1] != digests[2]
    assert "defects" not in depends_on(around(calibration=NORMAL, false_alarm_rate=0.1), {})


def test_tables_coco_and_record_have_the_verdict(around: Any, tmp_path: Path) -> None:
    files = [save(tmp_path / f"in/{name}.png", pixels) for name, pixels in (("a", GOOD), ("b", LOOK), ("c", BAD))]
    expected = ["good", "look", "defective"]
    with Results(tmp_path / "out", coco=True, page="Parts") as results:
        for finding in around(calibration=NORMAL, defects=DEFECTS, **RATES).inspect(files):
            results.add(finding, finding.path.relative_to(tmp_path / "in"))
        summary = results.finish()
    assert (summary.defective, summary.verdicts) == (1, {"good": 1, "look": 1, "defective": 1})
    assert [result.verdict for result in read_results(tmp_path / "out")] == expected
    with (tmp_path / "out/results.csv").open(newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == expected
    assert parquet.read_table(tmp_path / "out/results.parquet")["verdict"].to_pylist() == expected
    assert [image["verdict"] for image in json.loads((tmp_path / "out/coco.json").read_text())["images"]] == expected
    with Results(tmp_path / "two", coco=True) as results:
        for finding in around(calibration=NORMAL, false_alarm_rate=0.1).inspect(files):
            results.add(finding, finding.path.relative_to(tmp_path / "in"))
        assert results.finish().verdicts == {}
    assert "verdict" not in json.loads((tmp_path / "two/coco.json").read_text())["images"][0]
    assert parquet.read_table(tmp_path / "two/results.parquet")["verdict"].to_pylist() == [None] * 3


@pytest.mark.slow
def test_the_command_says_both_promises_and_refuses_other_defects_when_it_goes_on(
    tmp_path: Path, run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, images in (("good", NORMAL), ("bad", DEFECTS), ("in", [GOOD, LOOK, BAD])):
        for number, pixels in enumerate(images):
            save(Path(folder, f"{number}.png"), pixels)
    model = shallow()
    built = ["--class-name", "nut", "--backbone", model["backbone"], "--pretrained", model["pretrained"]]
    rates = ["--false-alarm-rate", "0.1", "--calibration", "good", "--miss-rate", "0.1", "--defects", "bad"]

    def inspect(*more: str) -> str:
        monkeypatch.setattr("sys.argv", ["anomalib-clipad", "inspect", "in", *built, *rates, *more])
        cli.main()
        return capsys.readouterr().out

    said = " ".join(inspect().split())
    assert "10 % false alarms, from 9 images; at most 28.3 %" in said
    assert "10 % of defects called good, from 9 known ones; at most 28.3 %" in said
    verdicts = [result.verdict for result in read_results(Path("inspection"))]
    counts = [verdicts.count(one) for one in ("defective", "look", "good")]
    assert "3 images, {} defective, {} to look at, {} good, 0 not readable".format(*counts) in said
    own = Inspector("nut", **model, calibration="good", defects="bad", **RATES)
    assert verdicts == [finding.verdict for finding in own.inspect("in")]
    save(Path("bad/0.png"), grey(0.9, 9))
    with pytest.raises(SystemExit, match="defects holds other content than then"):
        inspect("--resume")
