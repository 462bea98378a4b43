"""The console script: what the user can mend is said in one line."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY

from anomalib_clipad.backbones.sources import WeightsUnavailableError
from anomalib_clipad.tools import cli, demo

TEXT = f"text-features --backbone {TINY['backbone']} --pretrained {TINY['pretrained']}"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def run(command: str) -> None:
        monkeypatch.setattr(sys, "argv", ["anomalib-clipad", *command.split()])
        cli.main()

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("demo --categories [brick]", "Unknown generated category 'brick'"),
        ("demo --pictures 0", "pictures has to be an integer, 1 or more; got 0"),
        ("demo --good_images 0", "'good' of a generated category"),
        ("demo --defective_images 3", "'defective' of a generated category"),
        ("demo --seed -1", "'seed' of a generated category"),
        ("demo --output taken/demo", "taken"),
        ("demo --categories [gear] --data taken", "taken"),
        ("report nothing.csv", "nothing.csv"),
        ("text-features --class-name nut --backbone ViT-X-99", "ViT-X-99"),
        (f"{TEXT} --class-name nut --prompts nothing.yaml", "nothing.yaml"),
        (f"{TEXT} --class-name nut --rvs mean --rvs_options.eps 1", "eps"),
        (f"{TEXT} --class-name nut --output taken/vectors.safetensors", "taken"),
    ],
)
def test_a_wrong_argument_is_one_line(run: Callable[[str], None], tmp_path: Path, command: str, message: str) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(SystemExit) as stopped:
        run(command)
    line = str(stopped.value.code)
    assert line.startswith(f"anomalib-clipad {command.split()[0]}: ")
    assert "\n" not in line
    assert re.search(message, line)


@pytest.mark.parametrize("command", ["bench", "deployment", "large-images", "thresholds"])
def test_a_command_of_the_laboratory_says_where_it_went(run: Callable[[str], None], command: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(f"{command} --backbone clipad-mini")
    assert f"`python -m anomalib_clipad.lab {command}` in a clone" in str(stopped.value.code)


def test_a_file_that_cannot_be_verified_ends_with_status_two(
    run: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("verify nothing.onnx")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "anomalib-clipad verify: There is no file nothing.onnx.\n"


def test_an_empty_class_name_is_refused(run: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["anomalib-clipad", *TEXT.split(), "--class-name", "nut", " "])
    with pytest.raises(SystemExit, match="The class name is empty"):
        cli.main()


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def failing(pictures: int = 2) -> None:
        raise error

    monkeypatch.setattr(demo, "demo", failing)


def test_weights_that_cannot_be_had_are_one_line(run: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, WeightsUnavailableError("No network.\nFetch the file\nby hand."))
    with pytest.raises(SystemExit, match=r"^anomalib-clipad demo: No network. Fetch the file by hand\.$"):
        run("demo")


def test_a_fault_of_the_program_keeps_its_traceback(
    run: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        run("demo")
