"""A run on a cluster, from what a user names to a folder of results."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from anomalib_clipad.checks import check_counts, is_number
from anomalib_clipad.inspection.dependencies import about_of, depends_on
from anomalib_clipad.inspection.fitting import Fitting
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.parts import PartRule
from anomalib_clipad.inspection.records import as_result
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.inspection.sources import Source
from anomalib_clipad.inspection.tables import WORST, Summary

from . import engine
from .cluster import cluster
from .fits import OnCluster
from .rows import write_parquet

if TYPE_CHECKING:
    import pyarrow as pa


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
    asked: Mapping[str, Any],
    who: Cluster,
    command: str = "",
    part: str | None = None,
    **written: Any,
) -> tuple[Summary, dict[str, Any]]:
    """Inspect images and write results.

    Args:
        build: Makes the inspector, fitted by tasks of the cluster.
        sources: The images, files.
        folder: Output folder, which every machine reaches by this path.
        asked: What the inspector is made of, as of ``depends_on``.
        who: Who works.
        command: As of ``about_of``.
        part: How pictures of a part are called, if several show one.
        **written: Arguments of ``Results``: ``overwrite``, ``resume``, ``settings``.

    Returns:
        What it came to, and what there is to say of the verdicts.

    Raises:
        FileExistsError, BlockingIOError, ValueError: As of ``Results``.
        ConnectionError: If the cluster cannot be reached.
    """
    check_counts(actors=who.workers, block=who.block)
    if who.gpus is not None and not is_number(who.gpus, 0):
        msg = f"gpus has to be a number of GPUs, 0 or more; got {who.gpus!r}."
        raise ValueError(msg)
    with cluster(who.address, who.workers) as workers:
        import ray

        inspector = build(OnCluster())  # what cannot be built writes nothing
        shipped, about = [ray.put(inspector)], about_of(inspector, command)
        with Results(
            folder,
            parts=None if part is None else PartRule.of(part, inspector.model.normal),
            overlays="none",
            parquet=write_parquet,
            depends=depends_on(inspector, asked),
            about=about,
            **written,
        ) as results:
            block = engine.BLOCK if who.block is None else who.block
            wanted = (one for one in sources if results.wants(one.path, one.place, one.file))
            if engine.list_images(folder, wanted, block, results.called, results.fail):
                _write_down(engine.run(folder, shipped, workers, who.gpus or 0), results)
            return results.finish(), about


def _write_down(found: Iterable[pa.Table], results: Results) -> None:
    remarks = 0
    for row in chain.from_iterable(table.to_pylist() for table in found):
        if row["line"] is None:
            results.fail(row["path"], row["error"], row["place"])
            continue
        result = as_result(row["line"])
        results.write(result)
        remarks += result.remark is not None
        if result.remark is not None and remarks <= WORST:
            warnings.warn(f"{result.path}: {result.remark}.", stacklevel=2)
