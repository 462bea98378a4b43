"""A function of fixed shapes that a GPU repeats without being told each step."""

from __future__ import annotations

from collections.abc import Callable

import torch

_EAGER = 3
"""Calls before the capture, in which memory is laid out and libraries choose their kernels."""


class Graph:
    """Calls a function; on a GPU, from the fourth time on, by replaying a CUDA graph of it.

    Args:
        function: What is done to tensors that stay where they are; it reads nothing from the device.
        device: Where the tensors are. On a CPU the function is just called.
    """

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        self._function, self._captures = function, device.type == "cuda"
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Do it once more."""
        self._calls += 1
        if not self._captures:
            self._function()
        elif self._calls <= _EAGER:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._function()
            torch.cuda.current_stream().wait_stream(side)
        else:
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):
                    self._function()
            self._graph.replay()
