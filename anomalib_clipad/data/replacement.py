"""anomalib's reading functions replaced by ours, in this process and in workers, until they are restored.

A data set reads a file and may crop, flip or augment it before anyone sees the image, so what the file holds has to
be read rightly there and then. Data sets, of anomalib and of users, import ``read_image`` and ``read_mask`` by name,
into modules that nobody can list: not those names are replaced but the code of the two functions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import anomalib.data.utils.image as host
from torch.utils.data import DataLoader


def _read_image(path: str | Path, as_tensor: bool = False) -> Any:
    from anomalib_clipad.data.reading import read_image  # this code sees the names of anomalib's module only

    return read_image(path, as_tensor)


def _read_mask(path: str | Path, as_tensor: bool = False) -> Any:
    from anomalib_clipad.data.reading import read_mask

    return read_mask(path, as_tensor)


_OURS = {host.read_image: _read_image.__code__, host.read_mask: _read_mask.__code__}


def _give(codes: Mapping[Any, CodeType]) -> None:
    for function, code in codes.items():
        function.__code__ = code


@contextmanager
def readers_replaced() -> Iterator[None]:
    """Let anomalib read with our functions in this process for a while, whether that is so already or not."""
    before = {function: function.__code__ for function in _OURS}
    _give(_OURS)
    try:
        yield
    finally:
        _give(before)


def with_replacing_workers(loader: DataLoader, start: Callable[[int], None] | None) -> DataLoader:
    """A loader whose workers read with our functions, also where they do not inherit this process's memory.

    Args:
        loader: It stays as it is.
        start: What workers do first when the loader itself has nothing to start with.
    """
    loader = copy.copy(loader)
    loader.worker_init_fn = partial(_start_worker, then=loader.worker_init_fn or start)
    loader._iterator = None  # persistent workers, if any, were started by another run
    return loader


def _start_worker(index: int, then: Callable[[int], None] | None) -> None:
    _give(_OURS)
    if then is not None:
        then(index)
