"""The output folder: rows are whole whatever happens, one run writes at a time, files of others are not touched."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pyarrow import parquet

from anomalib_clipad.inspection.finding import Finding
from anomalib_clipad.inspection.lines import Lines, as_rows, cells, whole_rows
from anomalib_clipad.inspection.picture_files import HEAT_MAPS, THUMBNAILS
from anomalib_clipad.inspection.records import RECORDS, read_results
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.inspection.run_folder import NAMES, handed_out
from anomalib_clipad.inspection.tables import REGION_COLUMNS, summarize
from anomalib_clipad.verdicts.regions import Region

SIZE = (30, 40)
SQUARE = Region((4, 6, 10, 8), 80, 0.9, 0.85, 0.125)
SPOT = Region((30, 20, 2, 3), 6, 0.7, 0.65, None)


def found(path: str | None = "a.png", score: float = 0.75, regions: tuple[Region, ...] = (SQUARE, SPOT)) -> Finding:
    """A finding whose map has the peak of a region all over its box."""
    heat = np.full(SIZE, 0.25, np.float32)
    for (left, top, width, height), _, peak, *_ in regions:
        heat[top : top + height, left : left + width] = peak
    image = np.full((*SIZE, 3), (90, 120, 150), np.uint8)
    p_value = 0.05 if score > 0.5 else None
    kept = regions if score > 0.5 else ()
    return Finding(image, score, score > 0.5, 0.5, heat, kept, p_value, path=Path(path) if path else None)


def is_done(results: Results, path: Path) -> bool:
    return not results.wants(path, os.path.realpath(path), path)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- tables ---


def test_tables_are_what_independent_readers_say(tmp_path: Path) -> None:
    with Results(tmp_path / "out") as results:
        results.add(found("in/a.png"), PurePath("a.png"))
        results.add(found("in/b.png", 0.25), PurePath("b.png"))
        results.fail("in/c.png", 'cannot be read: broken, "half"\nof it')
        summary = results.finish()
    table = pd.read_csv(tmp_path / "out/results.csv")
    assert table.path.tolist() == ["in/a.png", "in/b.png"]
    assert table.score.tolist() == [0.75, 0.25]
    assert table.p_value[0] == 0.05
    assert np.isnan(table.p_value[1])
    assert table.label.tolist() == ["defective", "good"]
    assert table[["threshold", "width", "height", "regions"]].to_numpy().tolist() == [
        [0.5, 40, 30, 2],
        [0.5, 40, 30, 0],
    ]
    assert rows(tmp_path / "out/regions.csv") == [
        dict(zip(REGION_COLUMNS, ["in/a.png", "4", "6", "10", "8", "80", "0.9", "0.85", "0.125"], strict=True)),
        dict(zip(REGION_COLUMNS, ["in/a.png", "30", "20", "2", "3", "6", "0.7", "0.65", ""], strict=True)),
    ]
    assert rows(tmp_path / "out/failed.csv") == [
        {"path": "in/c.png", "reason": 'cannot be read: broken, "half"\nof it'}
    ]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out/results.parquet"), table, check_dtype=False)
    assert (summary.images, summary.defective, summary.failed) == (2, 1, 1)
    assert [result.path for result in summary.worst] == ["in/a.png", "in/b.png"]


def test_numbers_are_those_that_were_found(tmp_path: Path) -> None:
    scores = [1 / 3, 0.1, float(np.float32(0.7)), float("nan"), 1e-300, -12.5]
    with Results(tmp_path / "out") as results:
        for number, score in enumerate(scores):
            results.add(found(f"{number}.png", score), PurePath(f"{number}.png"))
        worst = results.finish().worst
    for table in (
        pd.read_csv(tmp_path / "out/results.csv", float_precision="round_trip"),
        pd.read_parquet(tmp_path / "out/results.parquet"),
    ):
        np.testing.assert_array_equal(table.score, scores)
    assert [row.path[0] for row in worst] == [*"320145"]  # what is no number is looked at first
    for turn in range(6):
        turned = iter([*worst[turn:], *worst[:turn]])
        assert [row.path for row in summarize(tmp_path, turned).worst] == [row.path for row in worst]


def test_what_is_no_number_is_null_in_the_record_and_none_again(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    region = Region((1, 2, 3, 4), 12, np.nan, np.inf, None)
    with Results(tmp_path) as results:
        results.add(replace(found(score=np.nan), regions=(region,)), PurePath("a.png"))
    line = json.loads((tmp_path / RECORDS).read_text(), parse_constant=refuse)
    assert line["score"] is line["regions"][0]["peak"] is line["regions"][0]["mean"] is None
    (result,) = read_results(tmp_path)
    assert np.isnan([result.score, result.regions[0].peak, result.regions[0].mean]).all()


def test_the_ten_worst_and_counts_of_many(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(100)
    with Results(tmp_path / "out", overlays="none") as results:
        for number in order:
            results.add(found(f"{number}.png", number / 100, ()), PurePath(f"{number}.png"))
        summary = results.finish()
    assert [result.score for result in summary.worst] == [n / 100 for n in range(99, 89, -1)]
    assert (summary.images, summary.defective) == (100, 49)


def test_an_empty_run_has_readable_tables(tmp_path: Path) -> None:
    with Results(tmp_path / "out", coco=True) as results:
        assert results.finish().worst == ()
    assert len(pd.read_csv(tmp_path / "out/results.csv")) == 0
    assert parquet.read_table(tmp_path / "out/results.parquet").num_rows == 0
    assert json.loads((tmp_path / "out/coco.json").read_text())["images"] == []


NASTY = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "'=1",
    "''=1",
    "'x",
    'a"b',
    "a,b",
    "a\nb",
    "a\rb",
    "ä ß 雪",
    "<img onerror=x>",
    "x=1",
]


@pytest.mark.parametrize("text", NASTY)
def test_cells_are_no_formulas_and_come_back(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"{text}.png").write_text("an image")
    row = as_rows([(f"{text}.png", -0.5, None, "")])
    [(read, number, *_)] = csv.reader(row.splitlines(keepends=True))
    assert not re.match(r"[=+\-@\t\r]", read)
    assert number == "-0.5"
    assert cells(row.encode()) == [f"{text}.png", "-0.5", "", ""]
    with Results(tmp_path / "out", overlays="none") as results:
        results.add(found(f"{text}.png"), PurePosixPath(f"{text}.png"))
        results.fail(f"{text}.jpg", f"{text} is no image")
    assert pd.read_parquet(tmp_path / "out/results.parquet").path.tolist() == [f"{text}.png"]
    for line in (*rows(tmp_path / "out/results.csv"), *rows(tmp_path / "out/failed.csv")):
        assert not any(
            re.match(r"[=+\-@\t\r]", cell) for key, cell in line.items() if key in {"path", "reason", "name"}
        )
    with Results(tmp_path / "out", overlays="none", resume=True) as results:
        assert is_done(results, Path(f"{text}.png"))


def test_names_that_are_no_text_are_written_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = os.fsdecode(b"caf\xe9.png")
    Path(path).write_text("an image")
    with Results(tmp_path / "out") as results:
        results.add(replace(found(path), remark=f"is the reference {path}"), PurePath(path))
        results.fail(f"{path}.txt", "x")
    table = pd.read_csv(tmp_path / "out/results.csv")
    assert table.path.tolist() == ["caf\\udce9.png"]
    assert table.remark.tolist() == ["is the reference caf\\udce9.png"]
    assert (tmp_path / "out/overlays/caf_.jpg").exists()
    with Results(tmp_path / "out", resume=True) as results:
        assert is_done(results, Path(path))


# --- pictures ---


def test_pictures_are_what_pillow_and_numpy_read(tmp_path: Path) -> None:
    finding = found()
    for maps in ("png", "npy"):
        with Results(tmp_path / maps, masks=True, maps=maps) as results:
            results.add(finding, PurePath("sub/deeper/a.png"))
        where = "sub/deeper/a"
        pictures = {f"masks/{where}.png", f"overlays/{where}.jpg", f"maps/{where}.{maps}"}
        assert {file for file in tree(tmp_path / maps) if "/" in file} == pictures
    mask = Image.open(tmp_path / "png/masks/sub/deeper/a.png")
    assert mask.mode == "L"
    np.testing.assert_array_equal(np.asarray(mask), finding.mask * 255)
    assert np.asarray(mask).sum() == 255 * (SQUARE.area + SPOT.area)
    levels = np.asarray(Image.open(tmp_path / "png/maps/sub/deeper/a.png"))
    assert cv2.imread(str(tmp_path / "png/maps/sub/deeper/a.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    np.testing.assert_allclose(levels / 65535, finding.map, atol=0.5001 / 65535)
    exact = np.load(tmp_path / "npy/maps/sub/deeper/a.npy")
    assert exact.dtype == np.float32
    np.testing.assert_array_equal(exact, finding.map)
    overlay = np.asarray(Image.open(tmp_path / "png/overlays/sub/deeper/a.jpg"), float)
    assert np.abs(overlay - np.asarray(finding.overlay())).mean() < 6  # JPEG


def test_thumbnails_are_small_and_of_every_image(tmp_path: Path) -> None:
    with Results(tmp_path / "out", overlays="none", page="A run") as results:
        results.add(found("fine.png", 0.1), PurePath("sub/fine.png"))
    small = Image.open(tmp_path / "out" / THUMBNAILS / "sub/fine.jpg")
    assert small.size == (40, 30)  # never larger than the image
    np.testing.assert_allclose(np.asarray(small)[15, 20], (90, 120, 150), atol=4)
    heated = Image.open(tmp_path / "out" / HEAT_MAPS / "sub/fine.jpg")
    assert heated.size == (40, 30)
    with Results(tmp_path / "out", overwrite=True, overlays="none") as results:
        pass
    assert not (tmp_path / "out" / THUMBNAILS).exists()
    assert not (tmp_path / "out" / HEAT_MAPS).exists()


def test_maps_clip_what_16_bits_do_not_hold(tmp_path: Path) -> None:
    finding = found(regions=())
    finding.anomaly_map[0, :4] = [1.0, 7.0, -1.0, np.nan]
    with Results(tmp_path / "out", overlays="none", maps="png") as results:
        results.add(finding, PurePath("a.png"))
    assert np.asarray(Image.open(tmp_path / "out/maps/a.png"))[0, :4].tolist() == [65535, 65535, 0, 65535]


@pytest.mark.parametrize(
    ("choice", "written"),
    [("defective", {"overlays/bad.jpg"}), ("all", {"overlays/bad.jpg", "overlays/fine.jpg"}), ("none", set())],
)
def test_overlays_are_those_asked_for(choice: Any, written: set[str], tmp_path: Path) -> None:
    with Results(tmp_path / "out", overlays=choice) as results:
        results.add(found("bad.png", 0.9), PurePath("bad.png"))
        results.add(found("fine.png", 0.1), PurePath("fine.png"))
    assert {file for file in tree(tmp_path / "out") if "/" in file} == written
    assert pd.read_csv(tmp_path / "out/results.csv").name.tolist() == ["bad", "fine"]


# --- whose folder it is ---


def test_foreign_files_are_refused_and_never_removed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with (
        pytest.raises(FileExistsError, match=r"holds other files, such as notes\.txt.*name another folder"),
        Results(tmp_path),
    ):
        pass
    with pytest.raises(FileExistsError, match="other files"), Results(tmp_path, resume=True):
        pass
    assert tree(tmp_path) == {"notes.txt"}
    with Results(tmp_path, overwrite=True) as results:
        results.add(found(), PurePath("sub/a.png"))
    (tmp_path / "overlays/mine.jpg").write_text("mine")
    with pytest.raises(FileExistsError, match=r"overlays is not of an earlier run"), Results(tmp_path, overwrite=True):
        pass
    assert tree(tmp_path) == {"notes.txt", "overlays/mine.jpg"}


@pytest.mark.parametrize("name", ["results.csv", "masks/a.png", "index.html"])
def test_files_of_others_with_our_names_are_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="never replaced"), Results(tmp_path, overwrite=True, masks=True):
        pass
    assert (tmp_path / name).read_text() == "mine"
    assert tree(tmp_path) == {name}


def test_overwriting_removes_all_of_the_earlier_run(tmp_path: Path) -> None:
    with Results(tmp_path, masks=True, maps="npy", overlays="all", coco=True) as results:
        for number in range(5):
            results.add(found(f"{number}.png"), PurePath(f"sub{number}/{number}.png"))
        results.fail("x", "y")
    (tmp_path / "index.html").write_text("a page of ours")
    with pytest.raises(FileExistsError, match="results of an earlier run"), Results(tmp_path):
        pass
    with Results(tmp_path, overwrite=True, overlays="none") as results:
        results.add(found("b.png"), PurePath("b.png"))
    tables = {"failed.csv", "regions.csv", "results.csv", "results.parquet"}
    assert tree(tmp_path) == {".names", "run.json", RECORDS, *tables}
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert pd.read_csv(tmp_path / "results.csv").path.tolist() == ["b.png"]
    assert rows(tmp_path / "failed.csv") == []


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(NotADirectoryError, match="out is a file"), Results(tmp_path / "out"):
        pass


def test_impossible_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both"):
        Results(tmp_path, overwrite=True, resume=True)
    with pytest.raises(ValueError, match="maps has to be one of none, png, npy; got 'tiff'"):
        Results(tmp_path, maps="tiff")  # type: ignore[arg-type]


# --- two runs ---


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    with Results(tmp_path) as first:
        first.add(found("a.png"), PurePath("a.png"))
        for way in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(BlockingIOError, match=rf"process {os.getpid()}\)"), Results(tmp_path, **way):
                pass
        first.add(found("b.png"), PurePath("b.png"))
        assert first.finish().images == 2
    assert not (tmp_path / ".lock").exists()


CHILD = """
import signal, sys, time
from pathlib import Path, PurePath
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background
sys.path.insert(0, sys.argv[2])
from test_results import found
from anomalib_clipad.inspection.picture_files import HEAT_MAPS, THUMBNAILS
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.inspection.tables import REGION_COLUMNS
from anomalib_clipad.verdicts.regions import Region
with Results(Path(sys.argv[1]), masks=True, overlays="all", coco=True) as results:
    for number in range(100000):
        results.add(found(f"{number}.png"), PurePath(f"sub/{number}.png"))
        if number == 20:
            print("ready", flush=True)
"""


def running(folder: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, folder, Path(__file__).parent], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.slow
def test_a_killed_run_blocks_nobody_and_loses_nothing(tmp_path: Path) -> None:
    for attempt in range(2):
        output = tmp_path / str(attempt)
        child = running(output)
        with pytest.raises(BlockingIOError, match=f"process {child.pid}"), Results(output, resume=True):
            pass
        child.kill()
        child.wait()
        assert (output / ".lock").exists()  # stale
        with Results(output, resume=True, masks=True, overlays="all", coco=True) as results:
            found_before = [result.path for result in read_results(output)]
            done = len(found_before)
            assert done >= 20
            assert found_before == [f"{number}.png" for number in range(done)]
            results.add(found("last.png"), PurePath("sub/last.png"))
            assert results.finish().images == done + 1
        assert_consistent(output, done + 1)


def assert_consistent(output: Path, count: int) -> None:
    table = pd.read_csv(output / "results.csv")
    assert len(table) == count
    assert pd.read_csv(output / "regions.csv").path.tolist() == [path for path in table.path for _ in range(2)]
    pictures = {f"masks/{name}.png" for name in table.name} | {f"overlays/{name}.jpg" for name in table.name}
    assert {file for file in tree(output) if "/" in file} == pictures
    for picture in pictures:
        Image.open(output / picture).load()
    coco = json.loads((output / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == table.path.tolist()
    assert len(coco["annotations"]) == 2 * count


@pytest.mark.slow
def test_a_run_that_is_interrupted_completes_its_files(tmp_path: Path) -> None:
    child = running(tmp_path / "out")
    child.send_signal(signal.SIGINT)
    assert child.wait(60)
    assert not (tmp_path / "out/.lock").exists()
    assert_consistent(tmp_path / "out", len(pd.read_parquet(tmp_path / "out/results.parquet")))


# --- going on ---


def test_a_resumed_run_is_that_of_one_piece(tmp_path: Path) -> None:
    def inspect(output: Path, numbers: range, resume: bool = False) -> None:
        with Results(output, masks=True, coco=True, resume=resume, settings={"threshold": 0.5}) as results:
            for number in numbers:
                path = tmp_path / f"in{number}/{number % 7}/a.png"
                if not path.exists():
                    path.parent.mkdir(parents=True)
                    path.write_text(str(number))
                if not is_done(results, path):
                    results.add(found(str(path)), PurePath(f"{number % 7}/a.png"))
            results.finish()

    inspect(tmp_path / "whole", range(20))
    for end in (0, 3, 11, 20):
        inspect(tmp_path / "pieces", range(end), resume=True)
    assert tree(tmp_path / "pieces") == tree(tmp_path / "whole")
    for file in tree(tmp_path / "whole") - {"results.parquet", "run.json"}:
        assert (tmp_path / "pieces" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


@pytest.mark.parametrize("cut", [1, 5, 40, 100, 900])
def test_half_a_line_is_dropped(cut: int, tmp_path: Path) -> None:
    def path(number: int) -> Path:
        return tmp_path / f'a "{number}",\n.png'

    with Results(tmp_path / "out") as results:
        for number in range(10):
            path(number).write_text(str(number))
            results.add(found(str(path(number))), PurePath(f"{number}.png"))
    record, table = tmp_path / "out" / RECORDS, tmp_path / "out/results.csv"
    whole = record.read_bytes(), table.read_bytes()
    record.write_bytes(whole[0][:-cut])
    with Results(tmp_path / "out", resume=True) as results:
        done = sum(is_done(results, path(number)) for number in range(10))
        assert done < 10
        assert whole[0].startswith(record.read_bytes())
        assert record.read_bytes().count(b"\n") == done
        assert table.read_bytes() == b"".join(list(whole_rows(table))[: done + 1])
        assert len(pd.read_csv(tmp_path / "out/regions.csv")) == 2 * done
        assert len(list((tmp_path / "out/overlays").iterdir())) == done
        for number in range(done, 10):
            results.add(found(str(path(number))), PurePath(f"{number}.png"))
    assert (record.read_bytes(), table.read_bytes()) == whole


def test_other_settings_are_not_resumed(tmp_path: Path) -> None:
    with Results(tmp_path, settings={"threshold": 0.5, "model": "mini"}):
        pass
    with (
        pytest.raises(ValueError, match=r"threshold was 0\.5 and is 0\.6"),
        Results(tmp_path, resume=True, settings={"threshold": 0.6, "model": "mini"}),
    ):
        pass
    with (
        pytest.raises(ValueError, match="masks was False and is True"),
        Results(tmp_path, resume=True, masks=True, settings={"threshold": 0.5, "model": "mini"}),
    ):
        pass
    with Results(tmp_path, resume=True, settings={"model": "mini", "threshold": 0.5}):
        pass


def test_half_a_name_is_dropped(tmp_path: Path) -> None:
    with Results(tmp_path, masks=True) as results:
        results.add(found("a.png"), PurePath("a.png"))
    with (tmp_path / NAMES).open("a") as file:
        file.write("it was killed he")
    with Results(tmp_path, masks=True, resume=True) as results:
        results.add(found("b.png"), PurePath("b.png"))
    assert handed_out(tmp_path) == {"a", "b"}


def test_a_run_of_another_version_is_not_resumed(tmp_path: Path) -> None:
    with Results(tmp_path):
        pass
    run = tmp_path / "run.json"
    run.write_text(run.read_text().replace("version 2", "version 1"))
    with pytest.raises(ValueError, match="is of another version"), Results(tmp_path, resume=True):
        pass
    with Results(tmp_path, overwrite=True):
        pass


def test_what_a_killed_run_left_unfinished_goes(tmp_path: Path) -> None:
    with Results(tmp_path):
        pass
    (tmp_path / ".unfinished-page/new").mkdir(parents=True)
    (tmp_path / ".unfinished-page/new/index.html").write_text("half")
    with Results(tmp_path, resume=True):
        assert not (tmp_path / ".unfinished-page").exists()


def test_all_that_is_not_as_it_was_is_said(tmp_path: Path) -> None:
    with Results(tmp_path, settings={"model": "mini", "rate": 0.1}, depends={"references": "1", "ignore": "2"}):
        pass
    changed = {"settings": {"model": "base", "tiles": 2}, "depends": {"ignore": "3", "calibration": "4"}}
    with pytest.raises(ValueError, match="cannot be resumed") as error, Results(tmp_path, resume=True, **changed):
        pass
    for said in (
        "model was 'mini' and is 'base'",
        "rate was 0.1 and is not given",
        "tiles was not given and is 2",
        "it had no calibration",
        "ignore holds other content than then",
        "it had a references",
    ):
        assert said in str(error.value)


def test_failures_are_tried_again(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.fail("a.png", "was being copied")
        results.fail("b.png", "is damaged")
    with Results(tmp_path, resume=True) as results:
        assert not is_done(results, Path("a.png"))
        results.add(found("a.png"), PurePath("a.png"))
        assert (results.finish().images, results.finish().failed) == (1, 1)
    assert rows(tmp_path / "failed.csv") == [{"path": "b.png", "reason": "is damaged"}]


def test_an_image_that_fails_twice_is_listed_once(tmp_path: Path) -> None:
    with Results(tmp_path, grows=True) as results:
        for path, reason in (("a.png", "is cut"), ("b.png", "is empty"), ("a.png", "is no image")):
            results.fail(path, reason)
        assert len(rows(tmp_path / "failed.csv")) == 2
        assert results.finish().failed == 2
        assert [tuple(row.values()) for row in rows(tmp_path / "failed.csv")] == [
            ("b.png", "is empty"),
            ("a.png", "is no image"),
        ]


def test_an_image_of_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("one")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with Results(tmp_path / "out") as results:
        results.add(found(str(path)), PurePath("a.png"))
    path.write_text("two")
    os.utime(path, ns=times)
    with Results(tmp_path / "out", resume=True) as results:
        assert not is_done(results, path)


def test_each_run_has_a_key_which_it_keeps(tmp_path: Path) -> None:
    keys = []
    for folder, options in (("a", {}), ("a", {"resume": True}), ("b", {}), ("a", {"overwrite": True})):
        with Results(tmp_path / folder, **options) as results:
            keys.append(results.key)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_one_that_failed_for_a_while_is_again_what_was_found(tmp_path: Path) -> None:
    """It was damaged when the run was resumed and killed, and is as at first when it is resumed again."""
    path = tmp_path / "a.png"
    path.write_text("whole")
    with Results(tmp_path / "out") as results:
        results.add(found(str(path)), PurePath("a.png"))
    with Results(tmp_path / "out", resume=True) as results:
        results.fail(path, "is damaged", str(path))
    with Results(tmp_path / "out", resume=True) as results:
        assert is_done(results, path)
        assert (results.finish().images, results.finish().failed) == (1, 0)
    assert rows(tmp_path / "out/failed.csv") == []


def test_images_that_were_not_given_come_last_where_the_run_is_interrupted_again(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        path.write_text(path.name)
    with Results(tmp_path / "out") as results:
        for path in paths[1:]:
            results.add(found(str(path)), PurePath(path.name))
    for whole, expected in ((False, [0, 1, 2]), (True, [1, 2, 0])):
        with Results(tmp_path / "out", resume=True) as results:
            if not is_done(results, paths[0]):
                results.add(found(str(paths[0])), PurePath("0.png"))
            results.finish(whole)
        assert [row["path"] for row in rows(tmp_path / "out/results.csv")] == [str(paths[one]) for one in expected]


def test_tables_are_made_of_the_record_anew(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add(found("a.png"), PurePath("a.png"))
    whole = {name: (tmp_path / name).read_bytes() for name in ("results.csv", "regions.csv")}
    (tmp_path / "regions.csv").write_bytes(whole["regions.csv"][:-5])
    (tmp_path / "results.csv").write_text("path,score\r\na,b\r\n")
    with Results(tmp_path, resume=True):
        pass
    assert whole == {name: (tmp_path / name).read_bytes() for name in whole}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    with Results(tmp_path) as results:
        results.add(found("a.png"), PurePath("a.png"))
    for damaged in ('{"path": "a.png"}\n', "no JSON\n", "[]\n"):
        (tmp_path / RECORDS).write_text(damaged)
        with pytest.raises(ValueError, match=r"results\.jsonl in .* is damaged"), Results(tmp_path, resume=True):
            pass
    with Results(tmp_path, overwrite=True):
        pass


# --- a full disk ---


class FullDisk:
    """A file that takes some bytes more, and then part of what is written."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = min(self.room, len(data))
        self.room -= taken
        return self.file.write(data[:taken])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def complete_on_full_disk(output: Path, table: str | None = None, room: int = 0) -> int:
    """Inspect until the disk is full; how many images are then said to be complete."""
    with pytest.raises(OSError, match="No space left on device") as caught:
        inspect_until_full(output, table, room)
    assert caught.value.errno == errno.ENOSPC
    said = re.search(r"(\d+) images are complete in .*results\.csv", str(caught.value))
    assert said is not None
    return int(said[1])


def inspect_until_full(output: Path, table: str | None, room: int) -> None:
    with Results(output, masks=True, overlays="all", coco=True) as results:
        if table is not None:
            lines = results._tables[table]
            lines._file = FullDisk(lines._file, room)  # type: ignore[assignment]
        for number in range(1000):
            results.add(found(f"{number}.png"), PurePath(f"sub/{number}.png"))


@pytest.mark.parametrize("table", ["results.csv", "regions.csv", RECORDS, ".names"])
@pytest.mark.parametrize("room", [0, 1, 30, 500])
def test_rows_stay_whole_on_a_full_disk(table: str, room: int, tmp_path: Path) -> None:
    complete = complete_on_full_disk(tmp_path / "out", table, room)
    assert_consistent(tmp_path / "out", complete)
    with Results(tmp_path / "out", masks=True, overlays="all", coco=True, resume=True) as results:
        assert len(list(read_results(tmp_path / "out"))) == complete
        results.add(found("more.png"), PurePath("sub/more.png"))
    assert_consistent(tmp_path / "out", complete + 1)


def test_pictures_stay_whole_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, saved = Image.Image.save, []

    def half(self: Image.Image, path: Path, **options: Any) -> None:
        save(self, path, **options)
        saved.append(path)
        if len(saved) == 3:  # an overlay, after its mask
            path.write_bytes(path.read_bytes()[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Image.Image, "save", half)
    assert complete_on_full_disk(tmp_path / "out") == 2
    assert_consistent(tmp_path / "out", 2)


LIMITED = """
import resource, sys
from pathlib import Path
from anomalib_clipad.inspection.lines import Lines
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # the kernel writes a part of what goes beyond
lines = Lines(Path(sys.argv[1]))
try:
    while True:
        lines.append("x" * 69 + "\\n")
except OSError as error:
    print(error.errno)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of the file size")
def test_a_row_that_the_system_cuts_is_taken_back(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path / "x"], check=True, capture_output=True, text=True)
    assert int(done.stdout) == errno.EFBIG
    assert (tmp_path / "x").read_text() == ("x" * 69 + "\n") * 14


@pytest.mark.parametrize("step", ["put_in_order", "atomic_folder"])
def test_a_disk_that_is_full_at_the_end_is_what_is_said(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where files that grow were about to be replaced, and a second try finds room."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Results(tmp_path) as results:
        results.fail("a.png", "was being copied")

    def end() -> None:
        with monkeypatch.context() as patch, Results(tmp_path, resume=True) as results:
            results.add(found("a.png"), PurePath("a.png"))
            patch.setattr(f"anomalib_clipad.inspection.results.{step}", full)
            results.finish()

    with pytest.raises(OSError, match=r"No space left .* resume the run") as caught:
        end()
    assert str(caught.value).count("resume the run") == 1
    with Results(tmp_path, resume=True) as results:
        results.add(found("b.png"), PurePath("b.png"))
        assert results.finish().images == 2


# --- threads, memory ---


def test_threads_add_whole_images(tmp_path: Path) -> None:
    with Results(tmp_path / "out", masks=True, overlays="all", coco=True) as results:

        def work(worker: int) -> None:
            for number in range(25):
                results.add(found(f"{worker}-{number}.png"), PurePath(f"sub/{worker}-{number}.png"))

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert_consistent(tmp_path / "out", 100)


@pytest.mark.slow
def test_memory_stays_as_it_is(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        with Results(tmp_path / str(count), overlays="none", coco=True) as results:
            tracemalloc.start()
            for number in range(count):
                results.add(finding, PurePath(f"{number}.png"))
            results.finish()
            used = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return used

    finding = found()
    peak(10)
    few, many = peak(200), peak(2200)
    assert (many - few) / 2000 < 300  # bytes an image: its name


def test_lines_can_be_cut_and_go_on(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "x")
    lines.append("one\n")
    size = lines.size
    lines.append("two\n")
    lines.truncate(size)
    lines.append("three\n")
    lines.close()
    assert (tmp_path / "x").read_text() == "one\nthree\n"
