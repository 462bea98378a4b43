"""The wheel in a stranger's hands: what README, page and playground promise, without the repository.

``make test-wheel`` copies this file, README.md and the notebook to an empty folder and runs them there, in an
environment that holds the built wheel.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image

from anomalib_clipad.parts.samples import named_sample

BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(Path(__file__).with_name("README.md").read_text(encoding="utf-8"))
NEEDS_MORE = re.compile(r"^(make|pip) |MVTecAD")
"""A clone, an index of packages, or real data."""
PYTHON = [body for language, body in BLOCKS if language == "python"]
COMMANDS = [
    command
    for language, body in BLOCKS
    if language == "bash"
    for line in re.sub(r"\\\n\s*", "", body).splitlines()
    if (command := re.split(r"\s+#|^#", line)[0].strip()) and not NEEDS_MORE.search(command)
]
MINI = {"anomalib-clipad": ["--backbone", "clipad-mini"], "anomalib": ["--model.backbone", "clipad-mini"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the images that README names."""
    place = tmp_path_factory.mktemp("stranger")
    for folder, count in {"path/to/images": 2, "path/to/normal": 20}.items():
        (place / folder).mkdir(parents=True)
        for number in range(count):
            pixels = named_sample("wood", folder, number, None, 0, 240).image
            Image.fromarray(pixels).save(place / folder / f"{number}.png")
    Image.fromarray(named_sample("wood", "test", 0, "hole", 0, 240).image).save(place / "path/to/images/one.png")
    return place


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def run(place: Path, *words: str) -> str:
    done = subprocess.run([program(words[0]), *words[1:]], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_it_is_the_wheel_that_is_tried() -> None:
    found, laboratory = find_spec("anomalib_clipad"), find_spec("anomalib_clipad.lab")
    assert found is not None
    assert Path(str(found.origin)).is_relative_to(sys.prefix)
    assert laboratory is None


def test_readme_has_what_is_tried() -> None:
    assert "Inspector(" in PYTHON[0]
    for words in ("anomalib-clipad inspect", "anomalib predict", "anomalib export"):
        assert any(command.startswith(words) for command in COMMANDS), words


@pytest.mark.parametrize("body", PYTHON)
def test_a_python_block_of_readme_runs(place: Path, body: str) -> None:
    assert 'Inspector("hazelnut", ' in body
    (place / "block.py").write_text(
        body.replace('Inspector("hazelnut", ', 'Inspector("wood", backbone="clipad-mini", ')
    )
    assert run(place, "python", "block.py").startswith("True 0.047")
    assert (place / "overlay.png").is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_readme_runs(place: Path, command: str) -> None:
    words = shlex.split(command)
    run(place, *words, *([] if "backbone" in command else MINI[words[0]]))
    if "inspect" in words:
        assert (place / "inspection/index.html").is_file()


def test_the_demo_ends_with_its_page(place: Path) -> None:
    few = ["--categories", "[weave]", "--good_images", "2", "--defective_images", "7"]
    told = run(place, "anomalib-clipad", "demo", *few, "--data", "parts")
    assert "false-alarm rate 5 %" in told
    assert (place / "demo/index.html").is_file()


def test_a_page_is_written(place: Path) -> None:
    run(place, "anomalib-clipad", "page", "--class-name", "wood", "-o", "inspector.html", *MINI["anomalib-clipad"])
    assert (place / "inspector.html").stat().st_size > 1e6


def test_the_playground_answers_and_stops(place: Path) -> None:
    words = [program("anomalib-clipad"), "playground", *MINI["anomalib-clipad"]]
    with subprocess.Popen(words, cwd=place, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            told = next((line for line in server.stdout if "http://" in line), "")
            address = re.search(r"http://[\w.:]+", told)
            assert address, told
            with urlopen(address[0]) as answer:
                assert answer.status == 200
                assert b"gradio" in answer.read()
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(60) in {0, -signal.SIGINT}


def test_nothing_of_the_repository_is_on_the_path() -> None:
    assert "PYTHONPATH" not in os.environ
    assert not any((Path(folder) / "pyproject.toml").is_file() for folder in sys.path)
