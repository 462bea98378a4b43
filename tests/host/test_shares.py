"""Two processes give what one gives, also where the images cannot be shared evenly."""

import json
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from conftest import shallow
from torch.utils.data import DataLoader, DistributedSampler

from anomalib_clipad.host.shares import _unrepeat, count_once

PROGRAM = """
import json, sys
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from anomalib_clipad import ClipAD

numbers = []
for options in {options!r}:
    model = ClipAD(**{tiny!r}, **options)
    engine = Engine(accelerator="cpu", devices=int(sys.argv[1]), strategy=sys.argv[2], logger=False,
                    default_root_dir="results", enable_progress_bar=False)
    data = MVTecAD({root!r}, "bolt", num_workers=0, eval_batch_size=4, val_split_mode="same_as_test")
    engine.validate(model, data)
    (metrics,) = engine.test(model, data, verbose=False)
    state = model.post_processor.state_dict()
    numbers.append({{**metrics, **{{name: float(value) for name, value in state.items() if value.ndim == 0}}}})
if engine.trainer.is_global_zero:
    with open(sys.argv[3], "w") as file:
        json.dump(numbers, file)
"""


def _run(folder: Path, program: Path, devices: int, strategy: str) -> list[dict[str, float]]:
    output = folder / f"{devices}.json"
    arguments = [str(program), str(devices), strategy, str(output)]
    if devices == 1:
        with patch.object(sys, "argv", arguments):
            run_path(str(program))
    else:
        command = [sys.executable, *arguments]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(output.read_text())


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path: Path, parts: Path) -> None:
    """Seven metrics and the fitted statistics; the pool of the mutual model has images of both processes."""
    program = tmp_path / "program.py"
    options = [{"k_shot": 2}, {"mutual": True, "pool": 8}]
    program.write_text(PROGRAM.format(tiny=shallow(), root=str(parts), options=options))
    one, two = (_run(tmp_path, program, *devices) for devices in ((1, "auto"), (2, "ddp")))
    assert len(one) == len(options)
    for alone, shared in zip(one, two, strict=True):
        assert len(alone) > 7 + 4
        assert shared == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize(("count", "processes"), [(23, 2), (7, 3), (8, 4), (3, 3)])
def test_every_image_is_in_exactly_one_share(count: int, processes: int, caplog: pytest.LogCaptureFixture) -> None:
    samplers = [DistributedSampler(range(count), processes, rank, shuffle=False) for rank in range(processes)]
    for sampler in samplers:
        _unrepeat(sampler)
    assert sorted(index for sampler in samplers for index in sampler) == list(range(count))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]
    assert not caplog.records


def test_a_strategys_loaders_repeat_nothing_from_now_on() -> None:
    strategy = SimpleNamespace(process_dataloader=lambda loader: ("processed", loader))
    count_once(strategy)
    loaders = [DataLoader(range(3), sampler=DistributedSampler(range(3), 2, rank, shuffle=False)) for rank in (0, 1)]
    assert [strategy.process_dataloader(loader) for loader in loaders] == [("processed", loader) for loader in loaders]
    assert [[int(index) for index in loader] for loader in loaders] == [[0, 2], [1]]
    assert strategy.process_dataloader([0, 1]) == ("processed", [0, 1])


def test_fewer_images_than_processes_are_repeated_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    sampler = DistributedSampler(range(2), 3, 2, shuffle=False)
    _unrepeat(sampler)
    assert len(list(sampler)) == 1
    assert "2 images are shared by 3 processes" in caplog.text
