"""The inspector on a cluster: rows of one process, whatever dies on the way; fits by tasks; what is refused."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import layers, save, shallow
from pyarrow import parquet

from anomalib_clipad import Inspector
from anomalib_clipad.inspection.records import RECORDS, read_results
from anomalib_clipad.inspection.sources import find
from anomalib_clipad.inspection.tables import PARQUET
from anomalib_clipad.scale import fits
from anomalib_clipad.scale.cluster import cluster
from anomalib_clipad.scale.engine import list_images
from anomalib_clipad.scale.engine import run as engine_run
from anomalib_clipad.tools import cli
from anomalib_clipad.vision.pool import Pool, joined, key_of
from anomalib_clipad.vision.references import mutual_rows, mutual_scores

IMAGES = 24


def image(path: Path, number: int) -> Path:
    pixels = np.random.default_rng(number).integers(256, size=(40 + number % 3, 50, 3), dtype=np.uint8)
    return save(path, cv2.GaussianBlur(pixels, (0, 0), 1 + number % 4))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("scale")
    for index, (name, count) in enumerate({"parts": IMAGES, "normal": 3, "calibration": 5}.items()):
        for number in range(count):
            image(root / name / f"{number // 10}/{number:02}.png", 100 * index + number)
    (root / "parts/broken.png").write_text("no image")
    return {name: root / name for name in ("parts", "normal", "calibration")}


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster of this machine for all tests here, whose processes get as much of a busy one as others."""
    ray = pytest.importorskip("ray", reason="the extra `scale` is not installed")
    with patch.dict(os.environ, RAY_worker_niceness="0"), cluster(workers=2):
        yield ray


def rows(folder: Path) -> list[dict[str, Any]]:
    return sorted(parquet.read_table(folder / PARQUET).to_pylist(), key=lambda row: row["path"])


def check_rows(folder: Path, inspector: Inspector, parts: Path) -> None:
    """Every image once, and each as one process finds it."""
    found = rows(folder)
    assert [row["path"] for row in found] == sorted(map(str, parts.rglob("*.png")))
    for row in found:
        if row["path"].endswith("broken.png"):
            assert "cannot be read" in row["error"]
            assert row["score"] is None
            continue
        finding = inspector.inspect(row["path"])
        assert row["score"] == pytest.approx(finding.score, abs=1e-5)
        assert row["threshold"] == pytest.approx(finding.threshold, abs=1e-5)
        assert row["p_value"] == finding.p_value
        assert (row["label"], row["decided"]) == ("defective" if finding.label else "good", False)
        assert (row["height"], row["width"]) == finding.image.shape[:2]
        assert row["regions"] == len(finding.regions)
        boxes = [(box["left"], box["top"], box["width"], box["height"]) for box in row["boxes"]]
        assert boxes == [region.box for region in finding.regions]


# Without a cluster.


def test_a_row_of_mutual_scores_needs_no_other() -> None:
    tokens = torch.randn(7, 4, 9, 6)
    parts = [mutual_rows(tokens, range(start, min(start + 3, 7))) for start in range(0, 7, 3)]
    torch.testing.assert_close(torch.cat(parts), mutual_scores(tokens), atol=1e-6, rtol=0)


def test_images_are_listed_in_blocks_and_what_is_missing_with_its_reason(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    twice, failed = str(folders["parts"]), list[tuple[str, ...]]()
    sources = find([twice, "gone.png", twice])
    count = list_images(tmp_path, sources, block=10, fail=lambda *what: failed.append(tuple(map(str, what))))
    assert count == IMAGES + 1
    tables = [parquet.read_table(path) for path in sorted((tmp_path / ".images").iterdir())]
    assert [table.num_rows for table in tables] == [10, 10, 5]
    assert len(set(pa.concat_tables(tables)["path"].to_pylist())) == IMAGES + 1
    assert failed == [("gone.png", "There is no file or folder gone.png.", "gone.png")]


def test_what_was_listed_before_is_not_inspected_again(folders: dict[str, Path], tmp_path: Path) -> None:
    for entry, blocks in ((folders["parts"], 7), (folders["parts"] / "0", 3)):
        list_images(tmp_path, find([str(entry)]), block=4)
        assert len(list((tmp_path / ".images").iterdir())) == blocks


def test_workers_elsewhere_are_told_where_an_image_is_and_what_it_is_called(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders["parts"])
    assert list_images(tmp_path, find(["0/01.png"]), 4, called=lambda path: f"my {path}") == 1
    (row,) = parquet.read_table(tmp_path / ".images/0000000.parquet").to_pylist()
    file = folders["parts"] / "0/01.png"
    assert row == {"path": "my 0/01.png", "file": str(file), "place": os.path.realpath(file)}


def test_frames_of_a_video_are_no_files(tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    with pytest.raises(ValueError, match=r"film\.avi#000001 is no file of its own"):
        list_images(tmp_path, find([str(film)]), 4)
    assert not list((tmp_path / ".images").iterdir())


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("anomalib_clipad.extras.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ray\[data\]>="), cluster():
        pass


def test_what_only_one_process_writes_is_refused(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> None:
    arguments = ["inspect", str(folders["parts"]), "--class-name", "nut", "--engine", "ray", "--masks", "true"]
    monkeypatch.setattr(sys, "argv", ["anomalib-clipad", *arguments, "--coco", "true"])
    with pytest.raises(SystemExit, match="leave out --masks, --coco, or --engine"):
        cli.main()


@pytest.mark.slow
def test_an_exported_file_travels_whole(
    tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from anomalib_clipad import ClipAD

    module = ClipAD("nut", **shallow())
    module.prepare()
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    path = module.to_torch(tmp_path)
    before = Inspector(model=path, min_area=3)
    packed = pickle.dumps(before)
    path.unlink()
    after = pickle.loads(packed)
    one = next(folders["normal"].rglob("*.png"))
    assert after.inspect(one).score == before.inspect(one).score
    assert after.min_area == 3


# On a cluster.


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no.such.host.invalid:6379"])
def test_a_cluster_that_cannot_be_reached_is_named(address: str) -> None:
    pytest.importorskip("ray", reason="the extra `scale` is not installed")
    with pytest.raises(ConnectionError, match=f"The Ray cluster '{address}' cannot be reached"), cluster(address):
        pass


@pytest.mark.slow
def test_what_is_found_comes_in_the_order_of_the_list(ray: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    class Slow:
        """Takes long for the first image, and can read none."""

        def stream(self, images: list[Path], fail: Any) -> Iterator[Any]:
            for image in images:
                time.sleep(3 * (image.stem == "00"))
                fail(image, ValueError(image.name))
            return iter(())

    count = list_images(tmp_path, find([str(folders["parts"] / "0")]), block=1)
    tables = engine_run(tmp_path, [ray.put(Slow())], 2, 0)
    assert [error for table in tables for error in table["error"].to_pylist()] == [f"{n:02}.png" for n in range(count)]


@pytest.mark.slow
def test_fits_are_those_of_one_process(ray: Any, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "_IMAGES", 2)  # so that there are several tasks
    given = {"references": folders["normal"], "calibration": folders["calibration"], "false_alarm_rate": 0.4}
    alone = Inspector("nut", **given, **shallow())
    fit = Inspector("nut", **given, **shallow(), fitting=fits.OnCluster())
    ours, theirs = (one.live("").model.detector.memory for one in (fit, alone))
    torch.testing.assert_close(ours.tokens, theirs.tokens, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.farthest, theirs.farthest, atol=1e-6, rtol=0)
    for name in ("image_scores", "region_scores"):
        np.testing.assert_allclose(getattr(fit.model.normal, name), getattr(alone.model.normal, name), atol=1e-6)
    assert [one.digest for one in fit.model.references] == [one.digest for one in alone.model.references]
    left_out = {"references": folders["normal"], "false_alarm_rate": 0.4, **shallow()}
    ours, theirs = Inspector("nut", **left_out, fitting=fits.OnCluster()), Inspector("nut", **left_out)
    np.testing.assert_allclose(ours.model.normal.image_scores, theirs.model.normal.image_scores, atol=1e-6)
    twice = {**given, "calibration": folders["normal"]}
    with pytest.raises(ValueError, match="is also a reference"):
        Inspector("nut", **twice, **shallow(), fitting=fits.OnCluster())

    images = sorted((folders["parts"] / "0").iterdir())[:5]
    inspector = Inspector("nut", **shallow())
    model = inspector.live("").model
    given = [folders["parts"] / "broken.png", *images, images[0]]
    pool = Inspector("nut", **shallow(), mutual=given, fitting=fits.OnCluster()).live("").model.pool
    prepared = torch.stack([torch.from_numpy(inspector.model.prepare(picture)) for picture in map(_picture, images)])
    expected = Pool(model.detector, joined([model.examine(prepared)]), list(map(key_of, prepared)))
    torch.testing.assert_close(pool.distance, expected.distance, atol=1e-5, rtol=0)
    torch.testing.assert_close(pool.score, expected.score, atol=1e-5, rtol=0)
    assert list(pool.rows) == list(expected.rows)
    with pytest.raises(ValueError, match="at least 2"):
        Inspector("nut", **shallow(), mutual=[images[0], images[0]], fitting=fits.OnCluster())
    some = {"mutual": 3 * [given[0]] + images, "pool": 4, "adapter": layers("af_clip")}  # whose radii are others
    both = (Inspector("nut", **shallow(), **some, fitting=fit) for fit in (fits.OnCluster(), None))
    ours, theirs = (one.live("").model.pool for one in both)
    assert list(ours.rows) == list(theirs.rows)
    torch.testing.assert_close(ours.distance, theirs.distance, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="0 of 2 can be read"):
        Inspector("nut", **shallow(), mutual=2 * [given[0]], fitting=fits.OnCluster())


def _picture(path: Path) -> Any:
    from anomalib_clipad.images.picture import read

    return read(path)


def _workers() -> list[int]:
    """Processes of the actors that inspect."""
    lines = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if "ray::MapWorker(MapBatches(Worker))" in line]


@pytest.mark.slow
def test_a_driver_and_a_worker_that_are_killed_lose_no_row_and_double_none(
    ray: Any, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is resumed after the one, and goes on by itself after the other."""
    address = ray.get_runtime_context().gcs_address
    model = shallow()
    out = tmp_path / "out"
    arguments = [
        "inspect", str(folders["parts"]), "--class-name", "nut", "--engine", "ray", "--ray_address", address,
        "--actors", "2", "--backbone", model["backbone"], "--pretrained", model["pretrained"], "--block", "2",
        "--output", str(out),
    ]  # fmt: skip
    program = "import sys; from anomalib_clipad.tools.cli import main; main()"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    driver = subprocess.Popen([sys.executable, "-c", program, *arguments], **quiet)
    end = time.monotonic() + 200
    while not (out / RECORDS).exists() or len(list(read_results(out))) < 4:
        assert driver.poll() is None, "it was to be killed"
        assert time.monotonic() < end
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    done = list(read_results(out))
    killed: list[int] = []

    def kill() -> None:
        """End a worker of the resumed run as soon as it has written rows."""
        end = time.monotonic() + 120
        while not killed and time.monotonic() < end:
            if len(list(read_results(out))) > len(done):
                killed.extend(_workers()[:1])
                for process in killed:
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    monkeypatch.setattr(sys, "argv", ["anomalib-clipad", *arguments, "--resume", "true"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 3  # one image cannot be read
    thread.join()
    assert killed
    rest = sum(parquet.read_table(file).num_rows for file in (out / ".images").iterdir())
    assert rest == IMAGES + 1 - len(done)
    check_rows(out, Inspector("nut", **model), folders["parts"])
    assert [result.path for result in read_results(out)] == sorted(map(str, folders["parts"].rglob("[0-9]*.png")))
    assert list(read_results(out))[: len(done)] == done
    other = ["bolt" if word == "nut" else word for word in arguments]
    for again, message in (
        (arguments, "results of an earlier run"),
        ([*other, "--resume", "true"], "class_name was 'nut' and is 'bolt'"),
    ):
        monkeypatch.setattr(sys, "argv", ["anomalib-clipad", *again])
        with pytest.raises(SystemExit, match=message):
            cli.main()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Images may be copies", "ignore:.*stand apart")
def test_a_run_that_is_resumed_is_known_by_content(
    ray: Any, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replaced image is done again, a link to one is the same image, and another calibration is refused."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        image(Path(f"parts/{number}.png"), number)
    Path("link").symlink_to("parts")
    shutil.copytree(folders["calibration"], "given")
    model = shallow()
    address = ray.get_runtime_context().gcs_address
    calibrated = ["--calibration", "given", "--false_alarm_rate", "0.2"]
    cluster = ["--engine", "ray", "--ray_address", address, "--actors", "1", "--output", "out", *calibrated]
    built = ["--class-name", "nut", "--backbone", model["backbone"], "--pretrained", model["pretrained"]]

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["anomalib-clipad", "inspect", *arguments, *cluster, *built])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        if isinstance(ended.value.code, str):
            raise ValueError(ended.value.code)

    run("parts", "missing.png")
    before = rows(Path("out"))
    assert [row["path"] for row in before] == ["missing.png", *(f"parts/{number}.png" for number in range(3))]
    image(Path("parts/1.png"), 77)
    run("link", "missing.png", "--resume")
    after = rows(Path("out"))
    assert len(after) == len(before)
    assert [row["score"] for row in after if row["path"].endswith(("0.png", "2.png"))] == [
        row["score"] for row in before if row["path"].endswith(("0.png", "2.png"))
    ]
    (done,) = [row for row in after if row["path"].endswith("1.png")]
    finding = Inspector("nut", calibration="given", false_alarm_rate=0.2, **model).inspect("parts/1.png")
    assert done["score"] == pytest.approx(finding.score, abs=1e-5)
    image(Path("given/0/00.png"), 78)
    with pytest.raises(ValueError, match="calibration holds other content than then"):
        run("parts", "--resume")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Images may be copies", "ignore:.*stand apart")
def test_three_verdicts_are_those_of_one_process(
    ray: Any, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known defects are scored by tasks, and are part of what a run depends on."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folders["normal"], "bad")
    model = shallow()
    rates = {"false_alarm_rate": 0.2, "miss_rate": 0.25}

    def run(*more: str) -> None:
        arguments = [
            "inspect", str(folders["parts"]), "--engine", "ray", "--actors", "1", "--output", "out",
            "--ray_address", ray.get_runtime_context().gcs_address, "--calibration", str(folders["calibration"]),
            "--false_alarm_rate", "0.2", "--miss_rate", "0.25", "--defects", "bad", "--class-name", "nut",
            "--backbone", model["backbone"], "--pretrained", model["pretrained"], *more,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["anomalib-clipad", *arguments])
        cli.main()

    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 3  # one image cannot be read
    own = Inspector("nut", calibration=folders["calibration"], defects="bad", **rates, **model)
    found = [row for row in rows(Path("out")) if row["error"] is None]
    expected = [own.inspect(row["path"]).verdict for row in found]
    assert len(set(expected)) > 1
    assert [row["verdict"] for row in found] == expected
    image(Path("bad/0/00.png"), 79)
    with pytest.raises(SystemExit, match="defects holds other content than then"):
        run("--resume")
