"""What commands printed, kept in a folder, so that nothing is measured twice."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from safetensors.torch import load_file

from anomalib_clipad.backbones.sources import SHIPPED
from anomalib_clipad.digest import digest
from anomalib_clipad.storage import atomic_folder
from anomalib_clipad.tools.verify import processor

_DIGITS = 12
_FLAGS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
"""What to call the widest instructions of a processor, by the flags of Linux."""


class Measured(NamedTuple):
    """What a command printed, and what that depends on.

    Attributes:
        command: As in the comments.
        weights: First digits of the digest of clipad-mini's tensors.
        version: Of this package.
        processor: With its cores, and whether it was shared with other work.
        output: What was printed.
    """

    command: str
    weights: str
    version: str
    processor: str
    output: str


def shipped_weights() -> str:
    """First digits of the digest of clipad-mini's tensors."""
    return digest(load_file(SHIPPED))[:_DIGITS]


def machine() -> str:
    """The processor, its widest instructions, its cores, and whether it has other work to do at the moment."""
    name, _, cores = processor().rpartition(", ")
    information = Path("/proc/cpuinfo")
    flags = information.read_text(encoding="utf-8", errors="replace").split() if information.is_file() else []
    widest = next((f", {title}" for flag, title in _FLAGS.items() if flag in flags), "")
    shared = hasattr(os, "getloadavg") and os.getloadavg()[0] > 1
    return f"{name}{widest}, {cores}{', shared with other work' if shared else ''}"


def missing(command: str) -> list[str]:
    """Variables of the environment that a command names and nobody has set."""
    return [name for name in re.findall(r"\$(\w+)", command) if name not in os.environ]


def measured(command: str, weights: str, folder: Path, root: Path) -> Measured:
    """What a command prints: from the folder, if it is there for these weights and this version, else run.

    Args:
        command: Begins with ``python``; variables such as ``$HAZELNUT`` are taken from the environment.
        weights: First digits of the digest of the weights.
        folder: Where it is kept.
        root: Folder in which it is run.

    Raises:
        RuntimeError: If it fails; with the end of what it says.
    """
    number = version("anomalib-clipad")
    kept = folder / f"{crc32(command.encode()):08x}-{weights}-{number}.json"
    if kept.exists():
        return Measured(**json.loads(kept.read_text(encoding="utf-8")))
    where = machine()
    arguments = [os.path.expandvars(word) for word in shlex.split(command)]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    run = subprocess.run(
        [sys.executable, *arguments[1:]], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode:
        msg = f"'{command}' ended with status {run.returncode}: {(run.stderr or run.stdout).strip()[-500:]}"
        raise RuntimeError(msg)
    found = Measured(command, weights, number, where, run.stdout)
    with atomic_folder(folder) as unfinished:
        (unfinished / kept.name).write_text(json.dumps(found._asdict()), encoding="utf-8")
    return found
