"""Fixtures: the golden tiny CLIP and its expected numbers, small data sets, processes of their own."""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from anomalib_clipad.lab.bench.browser import Browser, find_chromium

if TYPE_CHECKING:  # the process that hands out tests imports this file too, and needs neither
    from anomalib.data import MVTecAD
    from anomalib.engine import Engine
    from lightning.pytorch import Callback
    from torch import Tensor

    from anomalib_clipad import ClipADModel
    from anomalib_clipad.backbones import Backbone

pytest_plugins = ["exports"]
collect_ignore = ["stranger"]  # for an environment of its own: make test-wheel
GOLDEN = Path(__file__).parent / "golden"
TINY = {"backbone": str(GOLDEN / "tiny12.json"), "pretrained": str(GOLDEN / "tiny12.safetensors")}
CLASSES = ("bottle", "metal_nut")
OPTIONS = {"rvs": "kde", "rvs_options": {"bandwidth": 0.4}, "smoothing": 4.0, "tap": "block"}
"""Settings of ``ClipAD`` that are none of the defaults."""
HAZELNUT = Path(__file__).parents[2] / "shared/data/hazelnut"
"""Real photographs beside the repository, where there are any."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A notebook takes its time, and so does everything with a page that exports a model, or a server of gradio."""
    for item in items:
        if item.path.suffix == ".ipynb" or {"built", "gradio", "address"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.slow)
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)  # short ones fill the last seconds of all processes


def pytest_collection_finish() -> None:
    """Python looks for garbage ever again in what was imported, a tenth of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@cache
def shallow() -> dict[str, str]:
    """The tiny CLIP with the first four of its twelve blocks, one per stage: exports take a third of the time."""
    from safetensors.torch import load_file, save_file

    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder)
    config = json.loads(Path(TINY["backbone"]).read_text())
    config["vision_cfg"]["layers"] = 4
    (folder / "shallow.json").write_text(json.dumps(config))
    deeper = re.compile(r"visual\.transformer\.resblocks\.([4-9]|1\d)\.")
    weights = {name: value for name, value in load_file(TINY["pretrained"]).items() if not deeper.match(name)}
    save_file(weights, folder / "shallow.safetensors")
    return {"backbone": str(folder / "shallow.json"), "pretrained": str(folder / "shallow.safetensors")}


@cache
def layers(variant: str) -> Path:
    """A file of a variant's layers for that CLIP; they were drawn, but say that they are trained."""
    import torch

    from anomalib_clipad import ClipADModel, load_backbone
    from anomalib_clipad.adaptors.files import save_adapter

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ClipADModel(load_backbone(**shallow()), variant=variant)
    assert model.adapter is not None
    model.adapter.trained.fill_(True)
    path = Path(shallow()["backbone"]).with_name(f"{variant}.safetensors")
    save_adapter(model.adapter, path, model.settings, model.fingerprint)
    return path


@pytest.fixture(scope="session", autouse=True)
def cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests share a cache of their own, never the user's."""
    path = tmp_path_factory.mktemp("cache")
    os.environ["ANOMALIB_CLIPAD_CACHE"] = str(path)
    os.environ["CI"] = "true"  # otherwise OpenVINO tells its makers of every conversion, and waits for them
    return path


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test writes to the current folder is its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def expected() -> dict[str, Tensor]:
    """Numbers of the reference implementation on the tiny CLIP."""
    from safetensors.torch import load_file

    return load_file(GOLDEN / "tiny12_expected.safetensors")


@pytest.fixture(scope="session")
def reference_numbers() -> dict[str, Tensor]:
    """Numbers of few-shot and mutual scoring on the tiny CLIP, by their authors' modules."""
    from safetensors.torch import load_file

    return load_file(GOLDEN / "references_expected.safetensors")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    return path


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def tiny() -> dict[str, str]:
    """Constructor arguments of the tiny CLIP."""
    return dict(TINY)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    from anomalib_clipad import load_backbone

    return load_backbone(**TINY)


@pytest.fixture
def model(backbone: Backbone) -> ClipADModel:
    from anomalib_clipad import ClipADModel

    model = ClipADModel(backbone)
    model.setup("bottle")
    return model


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in MVTec layout: ten good and six scratched images of different sizes."""
    root = tmp_path_factory.mktemp("mvtec")
    rng = np.random.default_rng(0)
    folders = {"train/good": 4, "test/good": 5, "test/scratch": 6}
    for folder, count in folders.items():
        for index in range(count):
            size = 96 if index else 80
            image = rng.normal(128, 12, (size, size, 3)).clip(0, 255).astype(np.uint8)
            if folder.endswith("scratch"):
                mask = np.zeros((size, size), np.uint8)
                top, left = rng.integers(8, 40, 2)
                mask[top : top + 20, left : left + 30] = 255
                image[mask > 0] //= 3
                save(root / "bolt/ground_truth/scratch" / f"{index:03}_mask.png", mask)
            save(root / "bolt" / folder / f"{index:03}.png", image)
    return root


def remember(model: ClipADModel, images: Tensor, choose: Callable[[Tensor], Tensor] | None = None) -> None:
    """Let a model compare with normal images from now on."""
    model.detector.keep(model.detector.describe(images), images[:1], choose)


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write an image file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def datamodule(parts: Path) -> MVTecAD:
    """The data set above by the paper's protocol."""
    from anomalib.data import MVTecAD

    return MVTecAD(root=parts, category="bolt", num_workers=0, eval_batch_size=4, val_split_mode="same_as_test")


def make_engine(folder: Path, *callbacks: Callback, **options: Any) -> Engine:
    """An engine on one CPU that prints nothing."""
    from anomalib.engine import Engine

    quiet = {"logger": False, "accelerator": "cpu", "devices": 1, "enable_progress_bar": False}
    return Engine(default_root_dir=folder, callbacks=list(callbacks), **{**quiet, **options})


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(tmp_path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A picture alone in its folder."""
    return save(tmp_path / "images/one.png", np.random.default_rng(1).integers(0, 255, (90, 70, 3), np.uint8))


Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def run_python(tmp_path: Path) -> Run:
    """Run a program in a process of its own, with only the entry points to introduce the plugin."""

    def run(program: str, expect: int | None = 0, **environment: str) -> subprocess.CompletedProcess:
        return _run([sys.executable, "-c", program], tmp_path, expect, environment)

    return run


@pytest.fixture
def run_anomalib_process(tmp_path: Path) -> Run:
    """Run the stock command line in a process of its own, with only the entry points to introduce the plugin."""

    def run(*arguments: object, expect: int | None = 0, **environment: str) -> subprocess.CompletedProcess:
        command = [str(Path(sys.executable).with_name("anomalib")), *map(str, arguments)]
        return _run(command, tmp_path, expect, environment)

    return run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run `anomalib-clipad` in this process."""
    from anomalib_clipad.tools import cli

    def run(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["anomalib-clipad", *words])
        cli.main()

    return run


@pytest.fixture
def run_anomalib(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run the stock command line in this process, where anomalib is imported already."""
    from anomalib.cli.cli import main

    def run(*arguments: object, expect: int = 0) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "argv", ["anomalib", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        output = capfd.readouterr()
        assert code == expect, f"{output.out[-3000:]}\n{output.err[-3000:]}"
        return subprocess.CompletedProcess(list(map(str, arguments)), code, output.out, output.err)

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield run
    root.handlers[:] = handlers
    root.setLevel(level)


def _run(command: list[str], folder: Path, expect: int | None, environment: dict) -> subprocess.CompletedProcess:
    result = subprocess.run(
        command, cwd=folder, env={**os.environ, "COLUMNS": "200", **environment}, capture_output=True, text=True
    )
    if expect is not None:
        assert result.returncode == expect, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result


@pytest.fixture(autouse=True)
def reproducible() -> Iterator[None]:
    """One seed for every test, and its number of threads is no other's: too many make small tensors slow."""
    import torch

    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
