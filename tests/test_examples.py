"""Every command and Python block of the documentation runs, with clipad-mini where weights would be downloaded."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.cli.cli import main as anomalib
from anomalib.engine import Engine
from PIL import Image

from anomalib_clipad import ClipAD
from anomalib_clipad.parts.samples import named_sample
from anomalib_clipad.tools import cli

pytest.importorskip("onnxruntime", reason="the extra export is not installed")
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
NEEDS = {
    r"^make |^pip |^export |^python -m |^ray ": "an environment, or minutes",
    r"MVTecAD|mvtec|visa|medical|comparison\.yaml|--model\.adapter|clip_ad_plus": "real data or weights",
    r"^anomalib benchmark|^anomalib-clipad (report|deployment|bench|large-images)": "many minutes, or their results",
    r"/path/vit_b": "a file of real weights",
    r"--data Folder": "the folders of a data set, which tests/test_configs.py has",
    r"--export_type openvino|false_alarm_rate .*--export_type": "another conversion, which tests/deploy has",
    r"--image-size 480|--engine ray|playground|anomalib-clipad page": "the time, which tests of their own have",
    r"^anomalib-clipad teach|taught\.ckpt": "ticks of a page, which tests/inspection/test_teaching.py makes",
    r"--defects|--audit|--part ": "ticks of an audit or pictures of parts, which tests/inspection makes",
    r"onnx_verify|onnx_products": "a file that tests/deploy makes for it",
}
"""What is not run, and why: what it needs."""
READ_ONLY = {
    "deployment.md": ("inferencer.predict", "to_onnx"),
    "faq.md": ("load_from_checkpoint",),
    "algorithm.md": ("train_augmentations",),
    "thresholds.md": ("onnxruntime", "find_regions", "Drift", "ticks.csv"),
    "references.md": ("to_onnx",),
    "scale.md": ("cluster(",),
    "teaching.md": ("inspector.teach",),
}
"""Python blocks that go on from another one, or repeat an export; each of these words marks one."""


def commands() -> list[str]:
    """Every command of the pages once, without comments."""
    found: dict[str, None] = {}
    for page in PAGES:
        for language, body in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language == "bash":
                for line in re.sub(r"\\\n\s*", "", body).splitlines():
                    if command := re.split(r"\s+#|^#", line)[0].strip():
                        found[command] = None
    return list(found)


def reason(command: str) -> str | None:
    """Why a command is not run, if it is not."""
    return next((why for what, why in NEEDS.items() if re.search(what, command)), None)


RUN = [command for command in commands() if reason(command) is None]
PYTHON = [
    (page.name, body)
    for page in PAGES
    for language, body in BLOCK.findall(page.read_text(encoding="utf-8"))
    if language == "python" and not any(word in body for word in READ_ONLY.get(page.name, ()))
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has what the examples name."""
    place = tmp_path_factory.mktemp("examples")
    folders = [
        "path/to/images",
        "path/to/normal",
        "path/to/others",
        "path/to/other/normal/images",
        "path/to/good/parts",
    ]
    for number, folder in enumerate([*folders, "normal", "images"]):
        (place / folder).mkdir(parents=True)
        count = 20 if "other" in folder or "good" in folder or folder == "path/to/normal" else 2
        for index in range(count):
            pixels = named_sample("gear", folder, 100 * number + index, None, 0, 64).image
            Image.fromarray(pixels).save(place / folder / f"{index}.png")
    for name in ("part.png", "one.png", "image.png", "path/to/images/one.png"):
        Image.fromarray(named_sample("gear", name, 0, None, 0, 64).image).save(place / name)
    prompts = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/prompts.md").read_text(), re.DOTALL)
    assert prompts
    (place / "prompts.yaml").write_text(prompts[1])
    return place


def with_mini(command: str) -> list[str]:
    """The words of a command, with clipad-mini where no model is named."""
    words = shlex.split(command)
    named = "backbone" in command or "--model " in command.replace("--model ClipAD", "") or "verify" in command
    if words[0] == "anomalib-clipad":
        more = [] if named or words[1] == "cache" else ["--backbone", "clipad-mini"]
        return [*words, *more, *(["--overwrite", "true"] if words[1] == "inspect" else [])]
    more = [] if named or "--ckpt_path" in command or "help" in command else ["--model.backbone", "clipad-mini"]
    return [*words, *more]


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_the_command_runs(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    if "verify" in command and not Path("model.onnx").exists():
        exported = next(place.rglob("weights/onnx/model.onnx"), None)  # of the command above, where it has run
        written = exported or ClipAD("gear", backbone="clipad-mini", visualizer=False).to_onnx(place)
        shutil.copy(written, place / "model.onnx")
    if ".xml" in command or "ckpt" in command:
        pytest.skip("tests/deploy has such a file")
    words = with_mini(command)
    monkeypatch.setattr(sys, "argv", words)
    try:
        (anomalib if words[0] == "anomalib" else cli.main)()
    except SystemExit as end:
        assert not end.code, end.code  # noqa: PT017  # most of them end without


@pytest.mark.slow
@pytest.mark.parametrize(("page", "body"), PYTHON, ids=[f"{page}-{number}" for number, (page, _) in enumerate(PYTHON)])
def test_the_python_block_runs(page: str, body: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    program = re.sub(r'(Inspector|ClipAD)\((?:class_name=)?(")', r'\1(backbone="clipad-mini", class_name=\2', body)
    program = re.sub(r"load_backbone\([^)]*\)", 'load_backbone("clipad-mini")', program)
    frames = [np.asarray(Image.open("part.png"))] * 2
    above = {"Engine": Engine, "ClipAD": ClipAD}  # of a block before
    exec(program, {**above, "images": torch.zeros(1, 3, 304, 304), "frames": frames})


def test_nothing_is_left_out_unsaid() -> None:
    assert len(RUN) >= 12
    assert len(PYTHON) >= 5
    unused = [what for what in NEEDS if not any(re.search(what, command) for command in commands())]
    assert len(unused) <= 2
