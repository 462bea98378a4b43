"""Images through Ray Data: paths in Parquet files, inspectors in a pool of actors, lines of the record in order."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_clipad.images.picture import UnreadableError
from anomalib_clipad.inspection.run_folder import LISTED
from anomalib_clipad.inspection.sources import Source
from anomalib_clipad.storage import atomic_folder

from .rows import found

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 256
"""Images that are read, inspected and written down together."""
_SMALL = 0.01
"""Share of a CPU of tasks that only read lists: they never wait for one that the workers leave free."""


class Worker:
    """An inspector in a process of its own.

    Args:
        shipped: A list of one reference to the inspector, which is in the object store once for all of them.
        gpu: Whether it has a GPU.
    """

    def __init__(self, shipped: list[Any], gpu: bool) -> None:
        import ray
        import torch

        torch.set_num_threads(1)  # the share of each worker
        self._inspector = ray.get(shipped[0])
        if gpu:
            self._inspector.live("a GPU").to("cuda")

    def __call__(self, images: pa.Table) -> pa.Table:
        """Inspect images; see ``found``."""
        return found(self._inspector, images)


def list_images(
    folder: Path,
    sources: Iterable[Source],
    block: int,
    called: Callable[[Path], str] = str,
    fail: Callable[[Path, str, str], None] = lambda *_: None,
) -> int:
    """Write down what is to be inspected, and nothing that was before: a Parquet file for each block.

    Args:
        folder: Of the run.
        sources: The images.
        block: How many make one.
        called: What an image is called in tables.
        fail: Called with what cannot be had, and why.

    Returns:
        How many images there are.

    Raises:
        ValueError: If a source is no file, such as a frame of a video.
    """
    import pyarrow as pa
    from pyarrow import parquet

    count, files = 0, _files(sources, called, fail)
    shutil.rmtree(folder / LISTED, ignore_errors=True)
    with atomic_folder(folder / LISTED) as new:
        while rows := list(islice(files, block)):
            parquet.write_table(pa.Table.from_pylist(rows), new / f"{count // block:07d}.parquet")
            count += len(rows)
    return count


def _files(
    sources: Iterable[Source], called: Callable[[Path], str], fail: Callable[[Path, str, str], None]
) -> Iterator[dict[str, str]]:
    for source in sources:
        if isinstance(source.image, UnreadableError):
            fail(source.path, str(source.image), source.place)
        elif not isinstance(source.image, Path):
            msg = (
                f"{source.path} is no file of its own, and a cluster inspects files. Save the frames, or leave out "
                "--engine."
            )
            raise ValueError(msg)
        else:
            yield {"path": called(source.path), "file": str(source.path.absolute()), "place": source.place}


def run(folder: Path, shipped: list[Any], workers: int, gpus: float) -> Iterator[pa.Table]:
    """Inspect what ``list_images`` has written down.

    Ray Data does it: it feeds the actors, starts those anew that die, and gives their images to others.

    Args:
        folder: Of the run; every machine reaches it by this path.
        shipped: As of ``Worker``.
        workers: How many actors do it.
        gpus: GPUs of each, or a share of one.

    Returns:
        What was found, in the order of the list; see ``found``.
    """
    import ray

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.use_datasource_v2 = False  # it would make one block of all small files
    context.execution_options.preserve_order = True
    with ray.data.DataContext.current(context):
        listed = ray.data.read_parquet(
            str((folder / LISTED).absolute()),
            override_num_blocks=sum(1 for _ in (folder / LISTED).iterdir()),
            num_cpus=_SMALL,
        )
        rows = listed.map_batches(
            Worker,
            fn_constructor_args=(shipped, bool(gpus)),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=1,
            num_gpus=gpus,
        )
        yield from rows.iter_batches(batch_size=None, batch_format="pyarrow")
