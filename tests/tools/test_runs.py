"""Runs of `anomalib-clipad inspect` that are resumed: equal to one run of one piece, or refused by name."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from conftest import shallow
from PIL import Image

from anomalib_clipad import Inspector
from anomalib_clipad.inspection.drift_log import DriftLog
from anomalib_clipad.inspection.picture_files import remove_pictures
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.tools import cli

MODEL = shallow()
OPTIONS = f"--class-name nut --backbone {MODEL['backbone']} --pretrained {MODEL['pretrained']} --output out"
FEW = "ignore:(mutual compares only|Images may be copies|.*stand apart)"


def draw(path: Path, seed: int, size: tuple[int, int] = (40, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(*size, 3), dtype=np.uint8)
    Image.fromarray(cv2.GaussianBlur(pixels, (0, 0), 1 + seed % 4)).save(path)
    return path


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        draw(Path(f"parts/{number}.png"), number)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Run the command; its status."""

    def run(arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["anomalib-clipad", "inspect", *f"{OPTIONS} {arguments}".split()])
        try:
            cli.main()
        except SystemExit as end:
            if isinstance(end.code, str):
                raise
            return int(end.code or 0)
        return 0

    return run


def rows(table: str = "results") -> list[dict[str, str]]:
    with Path(f"out/{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def paths() -> list[str]:
    return [row["path"] for row in rows()]


def score(path: str, **given: Any) -> float:
    return float(Inspector("nut", **MODEL, **given).inspect(path).score)


def folder_of(name: str, seed: int, count: int = 3) -> str:
    for number in range(count):
        draw(Path(f"{name}/{number}.png"), seed + number)
    return name


# --- what a run depends on ---


def change_folder(name: str) -> None:
    draw(Path(f"{name}/1.png"), 99)


def change_mask(name: str) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[:30] = 255
    Image.fromarray(mask).save(name)


def change_prompts(name: str) -> None:
    Path(name).write_text(Path(name).read_text().replace("flawless", "perfect"))


def options_of(kind: str) -> str:
    if kind == "calibration":
        return f"--calibration {folder_of('given', 50, 5)} --false_alarm_rate 0.2"
    if kind == "references":
        return f"--references {folder_of('given', 50)}"
    if kind == "ignore":
        mask = np.zeros((40, 50), np.uint8)
        mask[:10] = 255
        Image.fromarray(mask).save("given.png")
        return "--ignore given.png"
    Path("given.yaml").write_text(
        json.dumps({"normal": ["flawless {}"], "abnormal": ["broken {}"], "templates": ["a photo of a {}."]})
    )
    return "--prompts given.yaml --rvs mean"


KINDS: dict[str, tuple[str, Callable[[str], None]]] = {
    "calibration": ("given", change_folder),
    "references": ("given", change_folder),
    "ignore": ("given.png", change_mask),
    "prompts": ("given.yaml", change_prompts),
}


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize("kind", KINDS)
def test_other_content_under_the_same_name_is_refused(kind: str, run: Callable[[str], int]) -> None:
    name, change = KINDS[kind]
    options = options_of(kind)
    run(f"parts/0.png parts/1.png {options}")
    before = Path("out/results.csv").read_bytes()
    change(name)
    with pytest.raises(SystemExit, match=f"results would be mixed: .*{kind} holds other content than then"):
        run(f"parts {options} --resume true")
    assert Path("out/results.csv").read_bytes() == before


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_content_under_another_name_goes_on(kind: str, run: Callable[[str], int]) -> None:
    name, _ = KINDS[kind]
    options = options_of(kind)
    run(f"parts/0.png {options}")
    other = name.replace("given", "moved")
    shutil.move(name, other)
    run(f"parts {options.replace(name, other)} --resume true")
    assert paths() == [f"parts/{number}.png" for number in range(4)]


def test_with_other_settings_a_run_does_not_go_on(run: Callable[[str], int]) -> None:
    run("parts/0.png --threshold 0.4")
    for options, said in (
        ("--threshold 0.5", "threshold was 0.4 and is 0.5"),
        ("--threshold 0.4 --smoothing 3", "smoothing was not given and is 3.0"),
        ("--threshold 0.4 --class-name bolt", "class_name was 'nut' and is 'bolt'"),
    ):
        with pytest.raises(SystemExit, match=said):
            run(f"parts {options} --resume")


@pytest.mark.filterwarnings(FEW)
def test_a_run_with_references_does_not_go_on_without(run: Callable[[str], int]) -> None:
    run(f"parts/0.png {options_of('references')}")
    with pytest.raises(SystemExit, match="it had a references"):
        run("parts --resume true")


@pytest.mark.slow
def test_a_file_that_is_exported_again_is_refused(run: Callable[[str], int], monkeypatch: pytest.MonkeyPatch) -> None:
    from anomalib_clipad import ClipAD

    module = ClipAD("nut", **MODEL)
    module.prepare()
    model = Path(module.to_onnx(Path.cwd()))
    monkeypatch.setattr(sys.modules[__name__], "OPTIONS", "--output out")
    run(f"parts/0.png --model {model}")
    again = onnx.load(model)
    onnx.helper.set_model_props(again, {"written": "at another time"})
    onnx.save(again, model)
    with pytest.raises(SystemExit, match="model holds other content than then"):
        run(f"parts --model {model} --resume true")


@pytest.mark.filterwarnings(FEW)
def test_images_that_judge_each_other_are_one_pool(run: Callable[[str], int]) -> None:
    run("parts --mutual true")
    before = rows()
    draw(Path("parts/9.png"), 9)
    with pytest.raises(SystemExit, match="mutual holds other content than then"):
        run("parts --mutual true --resume true")
    assert rows() == before


# --- which image it is ---


def test_images_of_another_folder_of_the_same_name_are_others(
    run: Callable[[str], int], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("parts")
    for number in range(4):
        draw(place / f"elsewhere/parts/{number}.png", 20 + number)
    (place / "elsewhere/out").symlink_to(place / "out")
    monkeypatch.chdir(place / "elsewhere")
    run("parts --resume true")
    assert [row["path"] for row in rows()] == [
        *(f"parts/{number}.png" for number in range(4)),
        *(f"{place}/elsewhere/parts/{number}.png" for number in range(4)),
    ]
    for row in rows()[4:]:
        assert float(row["score"]) == pytest.approx(score(row["path"]), abs=1e-5)


def test_absolute_and_relative_paths_are_the_same_images(run: Callable[[str], int], place: Path) -> None:
    run("parts")
    before = rows()
    run(f"{place}/parts --resume true")
    assert rows() == before
    assert rows("failed") == []


def test_a_replaced_image_gets_a_new_verdict_in_its_place(run: Callable[[str], int]) -> None:
    run("parts --masks true")
    before = rows()
    draw(Path("parts/1.png"), 31)
    run("parts --masks true --resume true")
    after = rows()
    assert [row["path"] for row in after] == [row["path"] for row in before]
    assert float(after[1]["score"]) == pytest.approx(score("parts/1.png"), abs=1e-5)
    assert after[1]["score"] != before[1]["score"]
    assert [after[place] for place in (0, 2, 3)] == [before[place] for place in (0, 2, 3)]
    assert {path.stem for path in Path("out/masks").iterdir()} == {row["name"] for row in after}
    lines = map(json.loads, Path("out/results.jsonl").read_text().splitlines())
    (line,) = [one for one in lines if one["path"] == "parts/1.png"]
    assert line["score"] == float(after[1]["score"])


def test_an_image_that_is_touched_is_not_looked_at_again(
    run: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("parts")
    before = rows()
    for path in Path("parts").iterdir():
        path.touch()
    monkeypatch.setattr(Results, "append", None)
    run("parts --resume true")
    assert rows() == before


def test_one_that_is_replaced_by_no_image_has_no_verdict(run: Callable[[str], int]) -> None:
    run("parts")
    Path("parts/2.png").write_text("no image")
    assert run("parts --resume true") == 3
    assert paths() == [f"parts/{number}.png" for number in (0, 1, 3)]
    assert [row["path"] for row in rows("failed")] == ["parts/2.png"]
    draw(Path("parts/2.png"), 2)
    assert run("parts --resume true") == 0
    assert paths() == [f"parts/{number}.png" for number in range(4)]
    assert rows("failed") == []


def test_what_failed_is_listed_once_however_it_is_named(run: Callable[[str], int], place: Path) -> None:
    image = Path("parts/2.png").read_bytes()
    Path("parts/2.png").write_text("no image")
    missing = place / "parts/missing.png"
    assert run("parts parts/missing.png") == 3
    assert run(f"{place}/parts {missing} --resume true") == 3
    assert [row["path"] for row in rows("failed")] == [f"{place}/parts/2.png", str(missing)]
    Path("parts/2.png").write_bytes(image)
    draw(missing, 5)
    assert run("parts --resume true") == 0
    assert rows("failed") == []


# --- what a run leaves that is killed ---


def test_a_run_that_was_killed_before_it_began_is_gone_on_with(run: Callable[[str], int]) -> None:
    left = Path("out/.unfinished-0/new")
    left.mkdir(parents=True)
    (left / "run.json").write_text("{")
    Path("out/.lock").write_text("1\n")
    assert run("parts --resume true") == 0
    assert paths() == [f"parts/{number}.png" for number in range(4)]
    assert not left.parent.exists()


def test_a_run_that_is_refused_removes_nothing(run: Callable[[str], int]) -> None:
    run("parts")
    left = Path("out/.unfinished-0/new")
    left.mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"threshold was not given and is 0.5"):
        run("parts --resume true --threshold 0.5")
    with pytest.raises(SystemExit, match="holds results of an earlier run"):
        run("parts")
    assert left.exists()


def test_one_that_dies_while_it_removes_pictures_leaves_no_rows_without(
    run: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed(folder: Path, names: set[str]) -> set[Path]:
        remove_pictures(folder, [*names][:2])
        raise KeyboardInterrupt

    run("parts --masks true")
    with monkeypatch.context() as killed:
        killed.setattr("anomalib_clipad.inspection.run_folder.remove_pictures", removed)
        with pytest.raises(KeyboardInterrupt):
            run("parts --masks true --overwrite true")
    assert run("parts --masks true --resume true") == 0
    assert paths() == [f"parts/{number}.png" for number in range(4)]
    assert {path.name for path in Path("out/masks").iterdir()} == {f"{number}.png" for number in range(4)}


# --- in which order ---


def test_two_runs_write_the_same(run: Callable[[str], int]) -> None:
    for number in range(4, 20):
        draw(Path(f"parts/{number:02}.png"), number, (30 + 7 * (number % 5), 60))
    (Path("parts") / "broken.png").write_text("no image")
    assert run("parts --coco true --workers 4 --batch_size 3 --threshold 0.3") == 3
    names = ("results.csv", "regions.csv", "failed.csv", "coco.json", "results.jsonl")
    first = {name: (Path("out") / name).read_bytes() for name in names}
    assert run("parts --coco true --workers 4 --batch_size 3 --threshold 0.3 --overwrite true") == 3
    assert first == {name: (Path("out") / name).read_bytes() for name in names}
    assert paths() == sorted(paths())


def test_a_resumed_run_has_the_order_of_one_of_one_piece(run: Callable[[str], int]) -> None:
    image = Path("parts/1.png").read_bytes()
    Path("parts/1.png").write_text("no image yet")
    assert run("parts/0.png parts/1.png parts/3.png --coco true") == 3
    Path("parts/1.png").write_bytes(image)
    assert run("parts --coco true --resume true") == 0
    pieces = rows(), rows("regions"), json.loads(Path("out/coco.json").read_text())
    assert run("parts --coco true --overwrite true") == 0
    whole = rows(), rows("regions"), json.loads(Path("out/coco.json").read_text())
    for piece, expected in zip(pieces[:2], whole[:2], strict=True):
        assert [row["path"] for row in piece] == [row["path"] for row in expected]
    assert pieces[2]["images"] == whole[2]["images"]
    assert [one["image_id"] for one in pieces[2]["annotations"]] == [one["image_id"] for one in whole[2]["annotations"]]


def test_a_resumed_run_that_is_interrupted_has_its_images_first(
    run: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("parts/2.png parts/3.png")
    stream = Inspector.stream

    def interrupted(self: Inspector, images: Iterator[Any], *others: Any) -> Iterator[Any]:
        yield from stream(self, [next(images)], *others)
        raise KeyboardInterrupt

    monkeypatch.setattr(Inspector, "stream", interrupted)
    with pytest.raises(SystemExit, match="interrupted; go on with --resume"):
        run("parts --resume")
    assert paths() == ["parts/0.png", "parts/2.png", "parts/3.png"]


def test_names_in_coco_are_unique_and_lead_to_the_files(run: Callable[[str], int]) -> None:
    draw(Path("a/000.png"), 1)
    draw(Path("b/000.png"), 2)
    run("a b --coco true")
    names = [image["file_name"] for image in json.loads(Path("out/coco.json").read_text())["images"]]
    assert len(set(names)) == 2
    assert all(Path(name).is_file() for name in names)


@pytest.mark.parametrize("way", ["--overwrite", "--overwrite true", "--overwrite=yes", "--resume"])
def test_an_undecided_run_gives_the_command_that_decides(
    way: str, run: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    run(f"{way} parts/0.png --masks true")
    command = f"inspect {OPTIONS} parts/0.png --masks true --calibration FOLDER --false_alarm_rate 0.05 --overwrite\n"
    assert f"run: anomalib-clipad {command}" in capsys.readouterr().out


@pytest.mark.filterwarnings(FEW)
def test_the_terminal_tells_what_there_is(run: Callable[[str], int], capsys: pytest.CaptureFixture[str]) -> None:
    Path("parts/9.png").write_text("no image")
    run("parts")
    said = capsys.readouterr().out
    assert "4 images, 1 not readable" in said
    assert re.findall(r"parts/\d\.png.* (\d) │ +\d+ │", said) == [*"1234"]
    assert "rank" in said
    assert not {"label", "good", "defective", "references"} & {*re.findall(r"\w+", said)}
    assert "A score says how suspicious" in said
    assert "A p-value says" not in said
    calibration = f"--calibration {folder_of('other', 70, 5)} --false_alarm_rate 0.2"
    run(f"parts --overwrite {options_of('references')} {calibration}")
    said = capsys.readouterr().out
    defective = sum(row["label"] == "defective" for row in rows())
    assert f"4 images, {defective} defective, 1 not readable" in said
    assert {"text", "references", "label"} <= {*re.findall(r"\w+", said)}
    assert len(re.findall(r"parts/\d\.png.* (?:good|defective) ", said)) == 4
    assert "20 % false alarms, from 5 images" in said
    assert "The threshold follows from one image alone" in said
    assert "A p-value says" in said


# --- its own output ---


@pytest.mark.parametrize("way", ["--resume true", "--overwrite true"])
def test_what_a_run_writes_is_never_looked_at(way: str, run: Callable[[str], int]) -> None:
    expected = [f"parts/{number}.png" for number in range(4)]
    assert run(". --overlays all --masks true") == 0
    assert paths() == expected
    assert run(f". --overlays all --masks true {way}") == 0
    assert paths() == expected


# --- the watch over a calibration ---


@pytest.fixture
def calibrated() -> str:
    return f"--calibration {folder_of('normal', 50, 8)} --false_alarm_rate 0.2 --drift state"


def seen(said: str) -> int:
    return int(re.findall(r"(\d+) images since the calibration", said)[-1])


@pytest.mark.filterwarnings(FEW)
def test_a_watch_belongs_to_a_class(run: Callable[[str], int], calibrated: str) -> None:
    run(f"parts {calibrated}")
    with pytest.raises(SystemExit, match=r"state holds no watch .*of class 'nut', and .* of 'bolt'"):
        run(f"parts {calibrated} --overwrite true --class-name bolt")


@pytest.mark.filterwarnings(FEW)
def test_a_new_calibration_begins_anew(
    run: Callable[[str], int], calibrated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(f"parts {calibrated}")
    run(f"parts {calibrated} --overwrite true")
    assert seen(capsys.readouterr().out) == 8
    draw(Path("normal/8.png"), 77)
    run(f"parts {calibrated} --overwrite true")
    said = capsys.readouterr().out
    assert "begins anew" in said
    assert seen(said) == 4
    run(f"parts {calibrated} --overwrite true")
    assert seen(capsys.readouterr().out) == 8


@pytest.mark.filterwarnings(FEW)
def test_a_run_that_dies_between_row_and_watch_is_caught_up(
    run: Callable[[str], int], calibrated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(f"parts {calibrated}")
    whole = Path("state").read_bytes()
    for kept in (1, 3):
        lines = whole.splitlines(keepends=True)[:kept]
        Path("state").write_bytes(b"".join(lines) + b'{"score": 0.')
        capsys.readouterr()
        run(f"parts {calibrated} --resume true")
        assert seen(capsys.readouterr().out) == 4
        assert Path("state").read_bytes() == whole


@pytest.mark.filterwarnings(FEW)
def test_a_watch_has_an_image_of_a_run_once_that_was_replaced_and_came_back(
    run: Callable[[str], int], calibrated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(f"parts {calibrated}")
    image = Path("parts/1.png").read_bytes()
    draw(Path("parts/1.png"), 31)
    run(f"parts {calibrated} --resume true")
    Path("parts/1.png").write_bytes(image)
    run(f"parts {calibrated} --resume true")
    assert seen(capsys.readouterr().out) == 5
    images = [json.loads(line).get("image") for line in Path("state").read_text().splitlines()]
    assert len(images) == len(set(images)) == 1 + 5


@pytest.mark.filterwarnings(FEW)
def test_an_alarm_is_told_when_it_is_raised(
    run: Callable[[str], int], calibrated: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = DriftLog.add
    monkeypatch.setattr(DriftLog, "add", lambda log, result: [add(log, result), result.path.endswith("2.png")][1])
    run(f"parts {calibrated}")
    assert "3 images since the calibration" in capsys.readouterr().err


@pytest.mark.filterwarnings(FEW)
def test_a_watch_whose_first_line_was_cut_off_begins_anew(run: Callable[[str], int], calibrated: str) -> None:
    run(f"parts {calibrated}")
    whole = Path("state").read_bytes()
    Path("state").write_bytes(whole[:60])
    run(f"parts {calibrated} --resume true")
    assert Path("state").read_bytes() == whole


@pytest.mark.filterwarnings(FEW)
@pytest.mark.parametrize("content", [b"PK\x03\x04 a state of 0.2", b"{}\n", b'{"format": "other"}\n'])
def test_another_file_is_no_watch(run: Callable[[str], int], calibrated: str, content: bytes) -> None:
    Path("state").write_bytes(content)
    with pytest.raises(SystemExit, match="state holds no watch over a calibration"):
        run(f"parts {calibrated}")
    assert Path("state").read_bytes() == content
    assert not Path("out").exists()


# --- images that arrive ---


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """What happens, one thing after the other, whenever nothing arrives; then the run is interrupted."""
    from anomalib_clipad.inspection import watching as module

    todo: list[Callable[[], None]] = []
    watch = module.watch

    def acted(folder: Path) -> Iterator[Any]:
        idle = 0
        for source in watch(folder, 0.2, 0.02):
            yield source
            idle = idle + 1 if source is None else 0
            if idle > 20:
                idle = 0
                if not todo:
                    raise KeyboardInterrupt
                todo.pop(0)()

    monkeypatch.setattr("anomalib_clipad.tools.inspect.watched", acted)
    yield todo
    assert not todo


def test_a_watched_file_that_is_written_again_is_another_image(
    run: Callable[[str], int], watching: list[Callable[[], None]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("parts/0.png")
    watching += [lambda: draw(path, 40) and None, lambda: path.touch(), lambda: Path("parts/late.png").write_text("x")]
    first = score("parts/0.png")
    assert run("--watch parts --threshold 0.5 --coco true") == 3
    assert paths() == [*(f"parts/{number}.png" for number in range(4)), "parts/0.png"]
    assert float(rows()[0]["score"]) == pytest.approx(first, abs=1e-5)
    assert float(rows()[4]["score"]) == pytest.approx(score("parts/0.png"), abs=1e-5)
    assert [row["path"] for row in rows("failed")] == ["parts/late.png"]
    names = [image["file_name"] for image in json.loads(Path("out/coco.json").read_text())["images"]]
    assert sorted(names) == sorted(set(names))
    said = capsys.readouterr().out
    told = re.findall(r"^parts/0\.png  0\.\d{3}  (\w+)$", said, re.MULTILINE)
    assert told == [rows()[0]["label"], rows()[4]["label"]]  # each verdict is told when it is found


def test_a_folder_that_cannot_be_watched_is_named_before_anything_is_written(run: Callable[[str], int]) -> None:
    run("parts")
    for folder, said in (("nowhere", "There is no folder nowhere"), ("out", "out is the output folder")):
        with pytest.raises(SystemExit, match=said):
            run(f"--watch {folder} -o other")
        assert not Path("other").exists()


def test_a_watched_file_that_failed_is_tried_again_when_it_changes(
    run: Callable[[str], int], watching: list[Callable[[], None]], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Path("parts/3.png").read_bytes()
    Path("parts/3.png").write_bytes(whole[:-200])  # its writer pauses
    watching += [lambda: Path("parts/3.png").write_bytes(whole) and None]
    assert run("--watch parts") == 0
    assert paths() == [f"parts/{number}.png" for number in range(4)]
    assert rows("failed") == []
    told = re.findall(r"^(parts/\d\.png)  \d\.\d{3}$", capsys.readouterr().out, re.MULTILINE)
    assert told == paths(), "where nothing decides, no verdict is told"


def test_page_and_parquet_are_current_while_images_are_waited_for(
    run: Callable[[str], int], watching: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    for name in ("_CURRENT", "_SHARE"):
        monkeypatch.setattr(f"anomalib_clipad.inspection.run.{name}", 0.0)

    found: list[Any] = []
    watching += [lambda: found.extend([pd.read_parquet("out/results.parquet"), Path("out/index.html").read_text()])]
    run("--watch parts")
    table, page = found
    assert table.path.tolist() == [f"parts/{number}.png" for number in range(4)]
    assert all(f"parts/{number}.png" in page for number in range(4))
