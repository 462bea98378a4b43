"""`anomalib-clipad inspect --engine ray`: what the options mean on a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from anomalib_clipad.inspection.fitting import Fitting
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.sources import Source
from anomalib_clipad.inspection.tables import Summary
from anomalib_clipad.scale.cluster import require_ray
from anomalib_clipad.scale.rows import RESULTS
from anomalib_clipad.scale.run import Cluster, inspect_on_cluster


def on_cluster(
    sources: Iterable[Source | None],
    class_name: str | None,
    files: Mapping[str, Any],
    how: Mapping[str, Any],
    who: Mapping[str, Any],
    *,
    folder: Path,
    **run: Any,
) -> tuple[Summary, Path]:
    """Inspect images on a cluster.

    Args:
        sources: The images.
        class_name: What they show.
        files: ``model`` and ``product``, as of ``Inspector``.
        how: Its other arguments.
        who: ``ray_address``, ``actors``, ``gpus`` and ``block``, where they are given.
        folder: Output folder.
        **run: Further arguments of ``inspect_on_cluster``.

    Returns:
        What it came to, and where the table is.
    """
    require_ray()

    def inspector(fitting: Fitting) -> Inspector:
        return Inspector(class_name, **files, **how, fitting=fitting)

    names = {"ray_address": "address", "actors": "workers"}
    cluster = Cluster(**{names.get(name, name): value for name, value in who.items() if value is not None})
    found = (source for source in sources if source is not None)
    return inspect_on_cluster(inspector, found, folder, who=cluster, **run), folder / RESULTS
