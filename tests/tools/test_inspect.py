"""`anomalib-clipad inspect`: what it reads, writes and says."""

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import shallow
from PIL import Image
from pyarrow import parquet

from anomalib_clipad import Inspector
from anomalib_clipad.inspection.records import read_results
from anomalib_clipad.tools import cli

MODEL = shallow()
OPTIONS = f"--class-name nut --backbone {MODEL['backbone']} --pretrained {MODEL['pretrained']}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "sub/a.png", "sub/<img onerror=alert(1)>.png", "=SUM(A1).png")):
        path = tmp_path / "parts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=(40, 50, 3), dtype=np.uint8)
        Image.fromarray(cv2.GaussianBlur(pixels, (0, 0), 1 + number)).save(path)
    return tmp_path / "parts"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(*arguments: object) -> None:
        flat: list[str] = []
        for argument in arguments:
            flat += argument.split() if isinstance(argument, str) else [str(argument)]
        monkeypatch.setattr(sys, "argv", ["anomalib-clipad", "inspect", *flat])
        cli.main()

    return run


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_tables_pictures_and_a_page(
    folder: Path, run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder, OPTIONS, "--threshold 0.0 --masks true --maps npy --coco true --output out")
    out = Path("out")
    rows = {row.path: row for row in read_results(out)}
    inspector = Inspector("nut", **MODEL, threshold=0.0)
    for finding in inspector.inspect(folder):
        row = rows[str(finding.path)]
        assert row.score == pytest.approx(finding.score, abs=1e-6)
        assert row.regions == tuple(finding.regions)
        saved = np.asarray(Image.open(out / f"masks/{row.name}.png")) > 0
        assert np.array_equal(saved, finding.mask)
        assert (out / f"overlays/{row.name}.jpg").is_file()
        np.testing.assert_allclose(np.load(out / f"maps/{row.name}.npy"), finding.map, atol=1e-6)
    assert len(rows) == 4
    assert {"results.parquet", "regions.csv", "failed.csv", "coco.json", "index.html"} <= {
        file.name for file in out.iterdir()
    }
    page = (out / "index.html").read_text()
    assert "<img onerror" not in page
    said = capsys.readouterr().out
    assert "4 images, 4 defective" in said
    assert said.strip().endswith("out/index.html")


@pytest.mark.slow
def test_a_damaged_image_is_listed_and_the_status_says_so(
    folder: Path, run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(SystemExit) as end:
        run(folder, OPTIONS, "--output out")
    assert end.value.code == 3
    (failed,) = _rows(Path("out/failed.csv"))
    assert failed["path"] == str(folder / "broken.png")
    assert "cannot be read" in failed["reason"]
    assert len(_rows(Path("out/results.csv"))) == 4
    assert "1 not readable" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["process", "ray"])
def test_what_is_wrong_with_one_input_is_a_row_and_an_image_counts_once(
    folder: Path, run: Callable[..., None], engine: str
) -> None:
    """By the same rule in one process and on a cluster; results of earlier runs are never looked at."""
    pytest.importorskip("ray", reason="the extra `scale` is not installed")
    (folder / "again.png").symlink_to(folder / "a.png")
    Path("list.txt").write_bytes(b"parts/sub/a.png\nparts/St\xfcck.png\n")
    for output in ("parts/out", "parts/second"):
        with pytest.raises(SystemExit) as end:
            run("parts/a.png gone.png list.txt parts parts/** .", OPTIONS, "--engine", engine, "--output", output)
        assert end.value.code == 3
        rows = parquet.read_table(Path(output) / "results.parquet").to_pylist()
        failed = [(row["path"], row["error"]) for row in rows if row.get("error")]
        if engine == "process":
            failed = [(row["path"], row["reason"]) for row in _rows(Path(output) / "failed.csv")]
        inspected = [row["path"] for row in rows if not row.get("error")]
        assert sorted(map(Path, inspected)) == sorted(
            Path("parts", name) for name in ("a.png", "sub/a.png", "sub/<img onerror=alert(1)>.png", "=SUM(A1).png")
        )
        assert [path for path, _ in sorted(failed)] == ["gone.png", "list.txt"]
        assert "There is no file or folder gone.png" in dict(failed)["gone.png"]
        assert "line 2" in dict(failed)["list.txt"]
    with pytest.raises(SystemExit, match="is the output folder of an inspection"):
        run("parts/out", OPTIONS, "--engine", engine, "--output third")
    assert not Path("third").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:mutual compares only")
def test_images_judge_each_other_and_a_damaged_one_is_listed(folder: Path, run: Callable[..., None]) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    with pytest.raises(SystemExit):
        run(folder, OPTIONS, "--mutual true --text-weight 0 --output out")
    inspector = Inspector("nut", **MODEL, text_weight=0.0, mutual=folder)
    for row in read_results(Path("out/results.csv")):
        assert row.score == pytest.approx(inspector.inspect(row.path).score, abs=1e-5)
    assert len(_rows(Path("out/failed.csv"))) == 1


@pytest.mark.slow
def test_an_interrupted_run_goes_on(folder: Path, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Inspector.stream

    def interrupted(self: Inspector, *arguments: object) -> object:
        findings = stream(self, *arguments)
        yield next(findings)
        raise KeyboardInterrupt

    monkeypatch.setattr(Inspector, "stream", interrupted)
    with pytest.raises(SystemExit, match="--resume"):
        run(folder, OPTIONS, "--output out")
    first = (Path("out") / "results.csv").read_text()
    assert len(first.splitlines()) == 2
    monkeypatch.setattr(Inspector, "stream", stream)
    with pytest.raises(SystemExit, match="Resume it, overwrite it"):
        run(folder, OPTIONS, "--output out")
    run(folder, OPTIONS, "--output out --resume true")
    paths = [row["path"] for row in _rows(Path("out/results.csv"))]
    assert len(paths) == len(set(paths)) == 4
    assert (Path("out") / "results.csv").read_text().startswith(first)


@pytest.mark.slow
def test_a_rate_decides_and_drift_goes_on_from_run_to_run(
    folder: Path, run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    rate = f"--calibration {folder} --false-alarm-rate 0.2"
    run(folder, OPTIONS, rate, "--output out --drift state.npz")
    assert sum(row["label"] == "defective" for row in _rows(Path("out/results.csv"))) <= 1
    assert all(float(row["p_value"]) >= 0.2 for row in _rows(Path("out/results.csv")))
    assert "4 images since the calibration" in capsys.readouterr().out
    run(folder, OPTIONS, rate, "--output other --drift state.npz")
    assert "8 images since the calibration" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("OPTIONS", "Name images to look at"),
        ("nowhere OPTIONS", "There is no file or folder nowhere"),
        ("parts OPTIONS --threshold 2", r"in \[0, 1\]"),
        ("parts OPTIONS --false-alarm-rate 0.1", "pass calibration"),
        ("parts OPTIONS --mutual true --references parts", "cannot be used with references"),
        ("film.mp4 OPTIONS --mutual true", "have to be files, no videos"),
        ("parts BACKBONE", "Say what the images show"),
        ("parts OPTIONS --drift state.npz", "pass calibration"),
        ("parts OPTIONS --calibration parts", "calibrates a false-alarm rate; pass false_alarm_rate too"),
        ("parts OPTIONS --actors 2 --block 8", "--actors, --block: for a cluster only"),
        ("parts --model model.onnx --threads 2", "--threads sets the threads of torch, and model.onnx runs without it"),
        ("parts OPTIONS --threads 0", "threads has to be an integer, 1 or more; got 0"),
        ("parts --model parts/a.png", "is no exported model"),
        ("parts --model nowhere.ckpt", "There is no file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    folder: Path, run: Callable[..., None], arguments: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    film = cv2.VideoWriter("film.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 5, (64, 48))
    film.write(np.zeros((48, 64, 3), np.uint8))
    film.release()
    backbone = f"--backbone {MODEL['backbone']} --pretrained {MODEL['pretrained']}"
    with pytest.raises(SystemExit, match=message) as end:
        run(arguments.replace("OPTIONS", OPTIONS).replace("BACKBONE", backbone))
    assert "\n" not in str(end.value)
    assert not Path("inspection").exists()


@pytest.mark.parametrize(
    "option",
    [
        "--overlays defective",
        "--threads 2",
        "--page true",
        "--masks true",
        "--maps png",
        "--coco true",
        "--mutual true",
        "--watch parts",
        "--drift state.npz",
    ],
)
def test_what_a_cluster_does_not_do_is_refused_by_name(run: Callable[..., None], option: str) -> None:
    name = option.split()[0]
    with pytest.raises(SystemExit, match=f"On a cluster results are tables only: leave out {name}, or --engine"):
        run(f"parts --engine ray {option}")


def test_a_debugger_sees_where_an_error_comes_from(folder: Path, run: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match="pass calibration"):
        run(folder, OPTIONS, "--false-alarm-rate 0.1 --debug true")


@pytest.mark.slow
def test_a_watched_folder_is_inspected_until_a_signal_ends_it(folder: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("anomalib-clipad")), "inspect", "--watch", str(folder)]
    process = subprocess.Popen([*command, *OPTIONS.split(), "--output", "out"], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE)  # fmt: skip
    results = tmp_path / "out/results.csv"
    _wait(lambda: results.is_file() and len(_rows(results)) == 4, process)
    Image.new("RGB", (50, 40), "red").save(folder / "late.png")
    _wait(lambda: len(_rows(results)) == 5, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "5 images" in said
    assert (tmp_path / "out/index.html").is_file()


def _wait(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)
