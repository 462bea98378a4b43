"""What is printed never ends a run: not a name that the terminal cannot write, nor a reader that has left."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

MAIN = [sys.executable, "-c", "from anomalib_clipad.tools.cli import main; main()"]


def start(folder: Path, *words: str, **variables: str) -> "subprocess.Popen[bytes]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*MAIN, *words], cwd=folder, env={**os.environ, **variables}, **pipes)


@pytest.fixture
def inspect(tmp_path: Path) -> list[str]:
    """The command that inspects a photograph with a Japanese name, and a damaged file, so that its status is 3."""
    folder = tmp_path / "部品"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(folder / "傷.png")
    (folder / "壊.png").write_bytes(b"no image")
    model = ["--backbone", TINY["backbone"], "--pretrained", TINY["pretrained"]]
    return ["inspect", folder.name, "--class-name", "nut", *model]


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict"}], ids=str
)
def test_a_name_that_the_terminal_cannot_write_is_written_by_its_numbers(
    tmp_path: Path, inspect: list[str], variables: dict[str, str]
) -> None:
    process = start(tmp_path, *inspect, **variables)
    said, complaints = process.communicate(timeout=300)
    assert process.returncode == 3, complaints
    assert b"Traceback" not in complaints
    assert b"results" in said or b"index.html" in said
    assert "傷.png" in (tmp_path / "inspection/results.csv").read_text(encoding="utf-8")
    assert rb"\u50b7.png" in said.replace(b"\n", b"").replace(b" ", b"")


@pytest.mark.slow
def test_a_reader_that_leaves_changes_neither_the_results_nor_the_status(tmp_path: Path, inspect: list[str]) -> None:
    process = start(tmp_path, *inspect)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    complaints = process.stderr.read()
    assert process.wait(timeout=300) == 3, complaints
    assert b"Traceback" not in complaints
    assert b"BrokenPipe" not in complaints
    assert "傷.png" in (tmp_path / "inspection/results.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(("words", "status"), [(["cache"], 0), (["inspcet"], 2), (["inspect", "--help"], 0)])
def test_any_command_ends_as_it_would_have_without_a_reader(tmp_path: Path, words: list[str], status: int) -> None:
    process = start(tmp_path, *words)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    complaints = process.stderr.read()
    assert process.wait(timeout=300) == status
    assert b"Traceback" not in complaints
    assert b"Exception" not in complaints


@pytest.mark.skipif(os.name != "posix", reason="a terminal of POSIX")
def test_a_terminal_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen([*MAIN, "cache"], cwd=tmp_path, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    os.close(ours)
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=300) == 0


def test_nobody_needs_to_hear_what_is_wrong(tmp_path: Path) -> None:
    process = start(tmp_path, "inspect", "absent-\udcff")
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=300) == 1
