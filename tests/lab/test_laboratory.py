"""The laboratory's command line: every name leads to its function with its options."""

import sys
from collections.abc import Callable

import pytest

from anomalib_clipad.lab import __main__ as lab

OPTIONS = {
    "adaptors": "--seeds",
    "bench": "--growth_to",
    "browser-runtime": "--folder",
    "demo-picture": "output",
    "deployment": "--formats",
    "endurance": "--damaged",
    "figures": "--check",
    "fuzz-runs": "--sequences",
    "large-images": "--category",
    "mini-card": "--real",
    "mini-hub": "--space",
    "mini-train": "--recipe.lr",
    "option-tables": "--check",
    "page-measure": "--images",
    "page-picture": "--good GOOD] [--defective DEFECTIVE] output",
    "paper": "results [results ...]",
    "playground-measure": "--repeats",
    "playground-picture": "output",
    "references": "--photographs",
    "scale": "--workers",
    "solar-cells": "--shots",
    "teach": "--ticks",
    "textiles": "--each",
    "three-verdicts": "--splits",
    "thresholds": "--stream",
    "variants": "--image_size",
    "web-page-demo": "folder",
    "web-page-measure": "--normal",
    "web-page-picture": "[--category CATEGORY] output",
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def run(command: str) -> None:
        monkeypatch.setattr(sys, "argv", ["lab", *command.split()])
        lab.main()

    monkeypatch.setenv("COLUMNS", "200")
    return run


@pytest.mark.parametrize(("name", "option"), OPTIONS.items())
def test_a_name_has_the_options_of_its_function(
    run: Callable[[str], None], capsys: pytest.CaptureFixture[str], name: str, option: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(f"{name} --help")
    assert not stopped.value.code
    assert option in " ".join(capsys.readouterr().out.split())


def test_every_name_is_listed(run: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    assert f"{{{','.join(OPTIONS)}}}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("endurence", "There is no command endurence; did you mean endurance?"),
        ("option-tables --chek", "There is no option --chek; did you mean --check?"),
        ("mini-train --recipe.lrr 1", "There is no option --recipe.lrr; did you mean --recipe.lr?"),
    ],
)
def test_what_is_misspelt_names_the_near_one(
    run: Callable[[str], None], capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(command)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(f": {message}\n")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("deployment --formats [TensorRT]", r"Unknown formats \['TensorRT'\]; expected some of torch, ONNX"),
        ("deployment --categories [gear,brick]", "Unknown generated category 'brick'"),
        ("deployment --batch_size 0", "batch_size has to be an integer, 1 or more"),
        ("deployment --repeats 0", "repeats has to be an integer, 1 or more"),
        ("deployment --threads -2", "threads has to be an integer, 1 or more"),
        ("deployment --backbone ViT-X-99", "ViT-X-99"),
        ("bench --only [speed]", r"Unknown measurements \['speed'\]; expected some of forward"),
        ("bench --repeats 0", "repeats has to be an integer, 1 or more"),
        ("thresholds --category brick", "Expected a category of .*; got brick, 100 of 300"),
        ("thresholds --images 50", "got gear, 100 of 50"),
        ("thresholds --stream 0", "stream has to be an integer, 1 or more"),
        ("paper nothing.csv", "nothing.csv"),
    ],
)
def test_a_wrong_argument_is_one_line(run: Callable[[str], None], command: str, message: str) -> None:
    with pytest.raises(
        SystemExit, match=f"^python -m anomalib_clipad.lab {command.split()[0]}: .*{message}"
    ) as stopped:
        run(command)
    assert "\n" not in str(stopped.value.code)
