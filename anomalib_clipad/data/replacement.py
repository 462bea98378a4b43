"""anomalib's reading functions replaced by ours, in this process and in workers, until they are restored.

A data set reads a file and may crop, flip or augment it before anyone sees the image, so what the file holds has to
be read rightly there and then. Data sets, of anomalib and of users, import ``read_image`` and ``read_mask`` by name,
into modules that nobody can list: not those names are replaced but the code of the two functions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anomalib.data.utils.image as host
from torch.utils.data import DataLoader

from . import reading


def _read_image(path: str | Path, as_tensor: bool = False) -> Any:
    from anomalib_clipad.data.reading import read_image  # this code sees the names of anomalib's module only

    return read_image(path, as_tensor)


def _read_mask(path: str | Path, as_tensor: bool = False) -> Any:
    from anomalib_clipad.data.reading import read_mask

    return read_mask(path, as_tensor)


_CODE = {
    host.read_image: (_read_image.__code__, reading.host_read_image.__code__),
    host.read_mask: (_read_mask.__code__, reading.host_read_mask.__code__),
}


def replace_readers() -> None:
    """Let anomalib read with our functions in this process."""
    for function, (ours, _) in _CODE.items():
        function.__code__ = ours


def restore_readers() -> None:
    """Give anomalib its own functions back."""
    for function, (_, theirs) in _CODE.items():
        function.__code__ = theirs


@contextmanager
def readers_replaced() -> Iterator[None]:
    """Let anomalib read with our functions for a while, whether a run has replaced them already or not."""
    before = {function: function.__code__ for function in _CODE}
    replace_readers()
    try:
        yield
    finally:
        for function, code in before.items():
            function.__code__ = code


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
    replace_readers()
    if then is not None:
        then(index)
