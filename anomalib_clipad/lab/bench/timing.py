"""Measure time and memory so that noise of the machine touches both sides of a ratio."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter
from typing import Any


def interleaved(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each function, run in turns after one run each to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            begin = perf_counter()
            function()
            if repeat:
                seconds[name].append(perf_counter() - begin)
    return {name: median(values) for name, values in seconds.items()}


def peak_memory(prepare: str, run: str) -> int:
    """Bytes by which a program's peak memory grows while ``run`` is executed, in a process of its own (Linux).

    Args:
        prepare: Python statements before.
        run: Python statements measured.
    """
    program = f"""
import re
from pathlib import Path
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
{prepare}
Path("/proc/self/clear_refs").write_text("5")
before = peak()
{run}
print("grown", peak() - before)
"""
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    return int(result.stdout.rsplit("grown", 1)[1])


def statement_seconds(statement: str, repeats: int, prepare: str = "") -> float:
    """Median seconds of a Python statement, each time in a fresh interpreter."""
    program = (
        f"{prepare}\nfrom time import perf_counter\nbegin = perf_counter()\n{statement}\nprint(perf_counter() - begin)"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(repeats)]
    return median(float(run.stdout.split()[-1]) for run in runs)
