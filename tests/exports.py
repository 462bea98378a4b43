"""Exports that several tests look at: one process of a run writes them, and the others wait for it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from torch import Tensor, nn


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the processes of a run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exports"
    folder.mkdir(exist_ok=True)
    return folder


def once(path: Path, write: Callable[[Path], object]) -> Path:
    """A file or folder that is written by whoever needs it first."""
    with FileLock(f"{path}.lock"):
        if not path.exists():
            write(draft := path.with_name(f"draft-{path.name}"))
            draft.rename(path)
    return path


@pytest.fixture(scope="session", autouse=True)
def conversions(exports: Path) -> Iterator[None]:
    """torch's exporter takes ten seconds: a graph that several tests share is converted once, by either process."""
    import torch

    export = torch.onnx.export

    def export_once(graph: nn.Module, images: tuple[Tensor, ...], path: Path, **options: Any) -> None:
        if options.get("external_data", True):  # weights in a file of their own, found by its name
            export(graph, images, path, **options)
            return
        inputs = [image.shape for image in (*images, *(options.get("kwargs") or {}).values())]
        about = repr((_content(graph), inputs, {**options, "kwargs": None}))
        name = f"{sha256(about.encode()).hexdigest()}.onnx"
        shutil.copy(once(exports / name, lambda draft: export(graph, images, draft, **options)), path)

    with patch.object(torch.onnx, "export", export_once):
        yield


def _content(module: nn.Module) -> list[object]:
    """What a module computes with: weights and settings, whatever objects hold them."""
    from torch import nn

    found: list[object] = []
    known = {*vars(nn.Module()), "metadata"} - {"training"}
    for name, part in module.named_modules():
        settings = {key: value for key, value in vars(part).items() if key not in known}
        found.append((name, type(part), re.sub("0x[0-9a-f]+", "", repr(settings))))
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        found.append((name, value.shape, sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()))
    return found
