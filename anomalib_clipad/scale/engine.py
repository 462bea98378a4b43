"""Images through Ray Data: paths in a Parquet file, inspectors in a pool of actors, rows in Parquet files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_clipad.images.picture import Picture, UnreadableError
from anomalib_clipad.inspection.run_folder import CHECKPOINTS, LISTED
from anomalib_clipad.inspection.sources import Source
from anomalib_clipad.storage import atomic_folder

from .rows import RESULTS, found

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 256
"""Images that are read, written and checkpointed together."""
_SMALL = 0.01
"""Share of a CPU of tasks that only read or write lists: they never wait for one that the workers leave free."""


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
        """Inspect images by their paths."""
        return found(self._inspector, *(images[name].to_pylist() for name in ("path", "file", "error")))


def list_images(folder: Path, sources: Iterable[Source], block: int) -> int:
    """Write down what is to be inspected: a Parquet file for each block.

    Returns:
        How many images there are.

    Raises:
        ValueError: If a source is no file, such as a frame of a video.
    """
    import pyarrow as pa
    from pyarrow import parquet

    kinds = pa.schema({"path": pa.string(), "file": pa.string(), "error": pa.string()}.items())
    count, files = 0, _files(sources)
    with atomic_folder(folder / LISTED) as new:
        while rows := list(islice(files, block)):
            name = f"{count // block:07d}.parquet"
            parquet.write_table(pa.Table.from_pylist(rows, kinds), new / name)
            count += len(rows)
    return count


def _files(sources: Iterable[Source]) -> Iterator[dict[str, str | None]]:
    for source in sources:
        path = str(source.path)
        if isinstance(source.image, Picture):
            msg = f"{path} is no file of its own, and a cluster inspects files. Save the frames, or leave out --engine."
            raise ValueError(msg)
        error = str(source.image) if isinstance(source.image, UnreadableError) else None
        yield {"path": path, "file": str(source.path.absolute()), "error": error}


def run(folder: Path, shipped: list[Any], workers: int, gpus: float) -> None:
    """Inspect what ``list_images`` has written down and is not done yet.

    Ray Data does it: it feeds the actors, starts those anew that die, and gives their images to others. A block counts
    as done when its rows are written.

    Args:
        folder: Of the run; every machine reaches it by this path.
        shipped: As of ``Worker``.
        workers: How many actors do it.
        gpus: GPUs of each, or a share of one.
    """
    import ray
    from ray.data.checkpoint import CheckpointConfig

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.use_datasource_v2 = False  # it would make one block of all small files
    context.checkpoint_config = CheckpointConfig(
        id_column="path", checkpoint_path=str((folder / CHECKPOINTS).absolute()), delete_checkpoint_on_success=False
    )
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
        rows.write_parquet(str((folder / RESULTS).absolute()), ray_remote_args={"num_cpus": _SMALL})
