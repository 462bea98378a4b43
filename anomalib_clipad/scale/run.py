"""A run on a cluster, from what a user names to a folder of results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from anomalib_clipad.checks import check_counts, is_number
from anomalib_clipad.inspection.fitting import Fitting
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.lock import folder_lock
from anomalib_clipad.inspection.run_folder import take_folder
from anomalib_clipad.inspection.sources import Source
from anomalib_clipad.inspection.tables import Summary

from . import engine
from .cluster import cluster
from .fits import OnCluster
from .rows import summarize, tell_remarks


class Cluster(NamedTuple):
    """Who works.

    Attributes:
        address: As of ``cluster``.
        workers: How many actors; by default all the cluster has room for.
        gpus: GPUs of each; by default none.
        block: Images that are written and checkpointed together; by default 256.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float | None = None
    block: int | None = None


def inspect_on_cluster(
    build: Callable[[Fitting], Inspector],
    sources: Iterable[Source],
    folder: Path,
    settings: Mapping[str, Any],
    who: Cluster,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> Summary:
    """Inspect images and write results.

    Args:
        build: Makes the inspector, fitted by tasks of the cluster.
        sources: The images, files.
        folder: Output folder, which every machine reaches by this path.
        settings: What has to be the same when a run is resumed; plain data for JSON.
        who: Who works.
        overwrite: Remove what an earlier run has written.
        resume: Go on with an earlier run.

    Raises:
        FileExistsError, BlockingIOError, ValueError: As of ``Results``.
        ConnectionError: If the cluster cannot be reached.
    """
    check_counts(actors=who.workers, block=who.block)
    if who.gpus is not None and not is_number(who.gpus, 0):
        msg = f"gpus has to be a number of GPUs, 0 or more; got {who.gpus!r}."
        raise ValueError(msg)
    if overwrite and resume:
        msg = "A run is either resumed or overwritten; got both."
        raise ValueError(msg)
    with cluster(who.address, who.workers) as workers:
        import ray

        shipped = [ray.put(build(OnCluster()))]  # what cannot be built writes nothing
        folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(folder):
            take_folder(folder, json.loads(json.dumps(settings)), overwrite, resume)
            engine.list_images(folder, sources, engine.BLOCK if who.block is None else who.block)
            engine.run(folder, shipped, workers, who.gpus or 0)
            tell_remarks(folder)
            return summarize(folder)
