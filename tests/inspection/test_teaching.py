"""Images ticked as good join the references: what that gives, what it refuses, and what holds it."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import shallow
from pictures import noise, noises, write

from anomalib_clipad import ClipAD
from anomalib_clipad.inspection.dependencies import about_of
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.taught_page import write_lesson
from anomalib_clipad.inspection.teaching import Judged, Lesson, Told
from anomalib_clipad.predictor.exported import ExportedPredictor
from anomalib_clipad.predictor.taught import Taught
from anomalib_clipad.vision.surgery import calibrate_reference_map

MODEL = {**shallow(), "rvs": "mean", "smoothing": 4}
HEAD = ["path", "score", "p_value", "threshold", "label", "tick", "truth", "missed", "false_regions"]


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """References, and a list of eight images."""
    monkeypatch.chdir(tmp_path)
    write(Path("good"), *noises(4))
    write(Path("list"), *noises(8, first=100))
    write(Path("others"), *noises(9, first=200))


def ticks(said: dict[str, str], name: str = "ticks.csv", label: str = "defective") -> Path:
    """What the page writes of one who has ticked these images."""
    with Path(name).open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\r\n")
        table.writerow(HEAD)
        table.writerows([path, "0.9", "", "0.5", label, "", truth, "", ""] for path, truth in said.items())
    return Path(name)


ALARMS = {"list/3.png": "good", "list/0.png": "good", "list/5.png": "defective"}


def inspector(**options: Any) -> Inspector:
    return Inspector("nut", **MODEL, **options)


def scores(own: Inspector) -> list[float]:
    return [one.score for one in own.inspect(noises(3, first=300))]


def joined(own: Inspector) -> list[str]:
    return [Path(one.name).name for one in own.model.references]


@pytest.mark.filterwarnings("ignore")
def test_a_taught_model_is_the_one_that_was_given_all_these_references() -> None:
    """With their spreads and scale; whatever the order of ticks, and copies count once."""
    own = inspector(references="good")
    before = scores(own)
    own.teach(ticks(ALARMS))
    order = sorted(["list/0.png", "list/3.png"], key=lambda name: inspector().show(name).identity.digest)
    files = [*(f"good/{number}.png" for number in range(4)), *order]
    assert scores(own) == scores(inspector(references=files)) != before
    other = inspector(references="good")
    write(Path("copies"), noise(100))
    turned = dict(reversed([*ALARMS.items(), ("copies/0.png", "good")]))
    lesson = other.teach(ticks(turned))
    assert scores(other) == scores(own)
    assert other.model.taught.digests == own.model.taught.digests
    assert (len(other.model.taught.digests), lesson.copies) == (2, 1)


@pytest.mark.filterwarnings("ignore")
def test_leaving_a_tick_out_undoes_it_and_a_second_lesson_adds() -> None:
    once, twice = inspector(references="good"), inspector(references="good")
    once.teach(ticks(ALARMS))
    twice.teach(ticks({"list/0.png": "good"}))
    assert scores(twice) != scores(once)
    twice.teach(ticks({"list/3.png": "good"}))
    assert scores(twice) == scores(once)
    undone = inspector(references="good")
    undone.teach(ticks({"list/3.png": "good"}))
    assert len(undone.model.references) == 5
    assert scores(undone) != scores(once)


@pytest.mark.filterwarnings("ignore")
def test_defects_do_not_teach_and_good_images_do_whatever_they_were_called() -> None:
    own = inspector(references="good")
    with pytest.raises(ValueError, match="nothing to learn"):
        own.teach(ticks({"list/3.png": "defective", "list/5.png": "defective"}, label="good"))
    assert own.model.taught is None
    assert len(own.model.references) == 4
    right = own.teach(ticks({"list/3.png": "good"}, label="good"))
    wrong = own.teach(ticks({"list/0.png": "good", "list/5.png": ""}, label="look"))
    assert len(own.model.references) == 6
    assert (right.alarms, right.unsaid) == (0, 0)
    assert (wrong.alarms, wrong.unsaid) == (1, 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_files_hold_what_was_taught_and_take_the_references_again_to_learn_more(suffix: str) -> None:
    own = inspector(references="good")
    own.teach(ticks(ALARMS), unticked="list")
    path = own.save(f"taught.{suffix}")
    given: dict[str, Any] = {"model": path} if suffix == "ckpt" else {**MODEL, "product": path}
    read = Inspector(**given)
    assert read.model.taught == own.model.taught
    assert scores(read) == pytest.approx(scores(own), abs=1e-6)
    assert "2 images ticked as good joined the references" in about_of(read, "")["decision"]
    more = ticks({"list/6.png": "good"})
    with pytest.raises(ValueError, match=r"pass the references again. Not at hand: 6 of them, such as good"):
        read.teach(more)
    with pytest.raises(ValueError, match=r"others/0.png is none of the 6 references"):
        read.teach(more, references="others")
    read.teach(more, references=[*sorted(Path("good").iterdir()), "list/0.png", "list/3.png"])
    own.teach(more)
    assert scores(read) == pytest.approx(scores(own), abs=1e-6)
    assert len(read.model.taught.digests) == 3


@pytest.mark.filterwarnings("ignore")
def test_other_references_are_not_what_was_taught() -> None:
    own = inspector(references="good")
    own.teach(ticks(ALARMS))
    own.model.look_for("bolt")  # the same references
    assert own.model.taught is not None
    own.model.fit(own.shown(noises(3), reference=True))
    assert own.model.taught is None
    own.teach(ticks(ALARMS))
    own.model.forget_references()
    assert own.model.taught is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_calibrated_checkpoint_that_is_taught_without_calibration_has_no_rate_any_more() -> None:
    inspector(references="good", calibration="others", false_alarm_rate=0.1).save("calibrated.ckpt")
    own = Inspector(model="calibrated.ckpt")
    assert own.decision.rate == 0.1
    own.teach(ticks(ALARMS), references="good")
    assert (own.decision.rate, own.decision.decided) == (None, False)
    read = Inspector(model=own.save("taught.ckpt"))
    assert (read.decision.rate, read.decision.decided) == (None, False)
    assert scores(read) == pytest.approx(scores(own), abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_thinned_memory_keeps_its_size() -> None:
    own = inspector(references="good", memory_size=7)
    lesson = own.teach(ticks(ALARMS))
    assert own.model.model.detector.memory.tokens.shape[-2] == 7
    assert lesson.told[0].after.score is None  # the other references are not there as wholes


@pytest.mark.slow
def test_the_calibration_is_taken_anew_and_never_on_the_list_that_was_ticked() -> None:
    own = inspector(references="good", calibration="others", false_alarm_rate=0.1)
    with pytest.warns(UserWarning, match="Dropped, since it does not hold for other references: calibration"):
        own.teach(ticks(ALARMS), unticked="list", calibration="others", false_alarm_rate=0.1)
    apart = inspector(references=[*sorted(Path("good").iterdir()), "list/3.png", "list/0.png"])
    apart.model.calibrate(apart.shown(sorted(Path("others").iterdir())), 0.1)
    np.testing.assert_allclose(own.model.raw_normal.image_scores, apart.model.raw_normal.image_scores, atol=1e-6)
    read = Inspector(model=own.save("taught.ckpt"))
    assert read.decision.rate == 0.1
    assert [one.label for one in read.inspect(noises(3, first=300))] == [
        one.label for one in own.inspect(noises(3, first=300))
    ]
    write(Path("mixed"), *noises(8, first=400), noise(101))  # copies of what was not ticked, and of what was
    write(Path("taught"), *noises(8, first=400), noise(100))
    with pytest.raises(ValueError, match=r"mixed/8.png is of the list that was ticked"):
        Inspector(model="taught.ckpt", calibration="mixed", false_alarm_rate=0.1)
    with pytest.raises(ValueError, match=r"taught/8.png was taught to the model"):
        Inspector(model="taught.ckpt", calibration="taught", false_alarm_rate=0.1)
    engines = ClipAD.load_from_checkpoint("taught.ckpt", false_alarm_rate=0.1, calibration_source="mixed")
    with pytest.raises(ValueError, match=r"mixed/8.png is of the list that was ticked"):
        engines.prepare()
    assert engines.preparation.predictor.taught == own.model.taught
    with pytest.raises(ValueError, match="a product file holds no calibration"):
        own.save("taught.safetensors")


@pytest.mark.filterwarnings("ignore")
def test_taught_images_do_not_calibrate_by_being_left_out() -> None:
    own = inspector(references="good")
    own.teach(ticks(ALARMS))
    with pytest.raises(ValueError, match="such images do not calibrate"):
        own.model.calibrate_left_out(own.model._shown, 0.2)


@pytest.mark.filterwarnings("ignore")
def test_the_lesson_tells_each_image_before_and_after_and_judges_taught_ones_by_the_others() -> None:
    own = inspector(references="good", threshold=0.5, text_weight=0)
    before = {path: own.inspect(path) for path in map(str, sorted(Path("list").iterdir()))}
    lesson = own.teach(ticks(ALARMS), unticked="list")
    told = {one.path: one for one in lesson.told}
    assert set(ALARMS) <= set(told)
    assert lesson.others == 5
    for path, one in told.items():
        assert one.before.score == pytest.approx(before[path].score, abs=1e-6)
        assert one.before.verdict == ("defective" if before[path].label else "good")
        if not one.taught:
            assert one.after.score == pytest.approx(own.inspect(path).score, abs=1e-6)
    for path, other in (("list/0.png", "list/3.png"), ("list/3.png", "list/0.png")):
        found = told[path]
        assert (found.taught, found.defective) == (True, False)
        without = inspector(references=[*sorted(Path("good").iterdir()), other], text_weight=0)
        peak = torch.tensor(without.model._raw([without.show(path).prepared]).anomaly_map.max())
        expected = calibrate_reference_map(peak, own.model.model.detector.memory.farthest)
        assert found.after.score == pytest.approx(float(expected), abs=1e-5)
        assert found.after.score > own.inspect(path).score + 0.1  # which compares it with itself


def test_images_that_judge_each_other_are_not_taught() -> None:
    with pytest.warns(UserWarning, match="compares only 4"):
        own = inspector(mutual="good", threshold=0.5)
    with pytest.raises(ValueError, match="judge each other have no references"):
        own.teach(ticks(ALARMS))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("path,truth\r\nlist/0.png,good\r\n", "holds no ticks"),
        ("path,label,truth,audit\r\nlist/0.png,,good,seed 0\r\n", "are of an audit"),
        ("path,label,truth\r\nlist/0.png,good,fine\r\n", "says 'fine' of list/0.png"),
        ("path,label,truth\r\nlist/0.png,defective,good\r\nlist/0.png,defective,defective\r\n", "as good and as defec"),
        ("path,label,truth\r\nlist/90.png,defective,good\r\n", "is not there"),
    ],
)
def test_ticks_that_teach_nothing_are_refused(said: str, message: str) -> None:
    Path("ticks.csv").write_text(said)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        inspector(references="good").teach("ticks.csv")


@pytest.mark.filterwarnings("ignore")
def test_a_copy_that_is_ticked_otherwise_is_refused() -> None:
    write(Path("copies"), noise(100))
    with pytest.raises(ValueError, match="a copy of it as defective"):
        inspector(references="good").teach(ticks({"list/0.png": "good", "copies/0.png": "defective"}))


def told(path: str, defective: bool | None, before: Any, after: Any, taught: bool = False) -> Told:
    return Told(path, defective, taught, Judged(*before), Judged(*after), b"jpeg")


def lesson(*rows: Told, **more: Any) -> Lesson:
    taught = Taught(("a",), (), "2026-03-01")
    rest = {"unsaid": 0, "others": 0, "unread": (), "decisions": ("", ""), "copies": 0, "alarms": 0}
    return Lesson(rows, taught, **{**rest, **more})


BAD, GOOD = (0.9, "defective"), (0.2, "good")


def test_a_lesson_that_lowers_false_alarms_at_equal_recall_helps_and_others_do_not() -> None:
    defects = [told(f"d{number}", True, (0.5, "good"), (0.5, "good")) for number in range(2)]
    better = lesson(told("a", False, BAD, GOOD, taught=True), told("b", False, BAD, BAD), *defects)
    assert better.compared == ((1.0, 0.0), (0.5, 0.5))
    assert better.helps is True
    said = " ".join(better.sentences())
    assert "100% of the good ones" in said
    assert "teaches nothing" not in said
    # Scores fall for all alike: verdicts change, and nothing was learnt.
    lower = [told(f"d{number}", True, (0.5, "good"), (0.1, "good")) for number in range(2)]
    worse = lesson(told("a", False, BAD, GOOD, taught=True), *lower)
    assert (worse.compared, worse.helps, len(worse.changed)) == (((1.0, 0.0), (1.0, 0.0)), False, 1)
    assert "This teaches nothing" in " ".join(worse.sentences())
    # As many false alarms, and yet one of the defects stands apart now.
    found = [told("d", True, (0.1, "good"), (0.1, "good")), told("e", True, (0.1, "good"), (0.3, "good"))]
    apart = lesson(told("a", False, GOOD, GOOD, taught=True), *found)
    assert apart.compared is not None
    assert (apart.compared[0].false_alarms, apart.compared[1].false_alarms, apart.helps) == (1.0, 1.0, True)
    alone = lesson(told("a", False, BAD, GOOD, taught=True))
    assert (alone.compared, alone.helps) == (None, None)
    assert "cannot be told" in " ".join(alone.sentences())


def test_the_report_escapes_names_and_shows_both_verdicts() -> None:
    page = write_lesson(Path("new/taught.html"), lesson(told("<b>&.png", False, BAD, GOOD, taught=True))).read_text()
    assert "&lt;b&gt;&amp;.png" in page
    assert "<b>" not in page
    assert '<span class="defective">defective 0.900</span>' in page
    assert '<span class="good">good 0.200</span>' in page
    assert "<h2>Verdicts that change: 1</h2>" in page
    assert "<script" not in page


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_command_writes_a_model_and_its_report(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--{name}={value}" for name, value in MODEL.items()]
    given = ["teach", str(ticks(ALARMS)), "--class-name", "nut", *options, "--threshold", "0.5"]
    run(*given, "--references", "good", "--unticked", "list", "-o", "taught.ckpt")
    said = capsys.readouterr().out
    assert "2 images ticked as good joined the references" in " ".join(said.split())
    assert "list/0.png" in Path("taught.html").read_text()
    own = inspector(references="good")
    own.teach(ticks(ALARMS), unticked="list")
    assert scores(Inspector(model="taught.ckpt")) == pytest.approx(scores(own), abs=1e-6)
    assert Inspector(model="taught.ckpt").model.taught.rest == own.model.taught.rest
    more = str(ticks({"list/6.png": "good"}))
    with pytest.raises(SystemExit, match="pass the references again"):
        run("teach", more, "--model", "taught.ckpt", "-o", "more.ckpt")
    assert not Path("more.ckpt").exists()
    with pytest.raises(SystemExit, match=r"checkpoint \(\.ckpt\) or a product file \(\.safetensors\); got more.onnx"):
        run("teach", more, "--model", "taught.ckpt", "-o", "more.onnx")
    with pytest.raises(SystemExit, match="Taught images do not calibrate"):
        run(*given, "--references", "good", "--false-alarm-rate", "0.2")
    with pytest.raises(SystemExit, match="a product file holds no calibration"):
        run(*given, "--calibration", "others", "--false-alarm-rate", "0.2", "-o", "taught.safetensors")


def test_an_exported_file_is_not_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    own = inspector(references="good")
    monkeypatch.setattr(own, "model", ExportedPredictor.__new__(ExportedPredictor))
    with pytest.raises(ValueError, match="exported file cannot take teaching"):
        own.teach(ticks(ALARMS))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_exported_file_says_what_it_was_taught_and_refuses_the_same_calibration(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    own = inspector(references="good")
    own.teach(ticks(ALARMS), unticked="list")
    model = ClipAD.load_from_checkpoint(own.save("taught.ckpt"), map_location="cpu").eval()
    exported = Inspector(model=model.to_onnx(tmp_path))
    assert exported.model.taught == own.model.taught
    assert "2 images ticked as good joined the references" in about_of(exported, "")["decision"]
    assert scores(exported) == pytest.approx(scores(own), abs=1e-4)
    write(Path("mixed"), *noises(8, first=400), noise(101))
    with pytest.raises(ValueError, match=r"mixed/8.png is of the list that was ticked"):
        Inspector(model=tmp_path / "weights/onnx/model.onnx", calibration="mixed", false_alarm_rate=0.1)
