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
    places: Mapping[str, Any],
    decision: Mapping[str, Any],
    build: Mapping[str, Any],
    *,
    folder: Path,
    who: tuple[Any, ...],
    **run: Any,
) -> tuple[Summary, Path]:
    """Inspect images on a cluster.

    Args:
        sources: The images.
        class_name: What they show.
        places: ``model``, ``product``, ``normal``, ``calibration`` and ``ignore``, as of ``Inspector``.
        decision: ``false_alarm_rate``, ``threshold`` and ``min_area``, likewise.
        build: Its other arguments.
        folder: Output folder.
        who: Fields of ``Cluster``.
        **run: Further arguments of ``inspect_on_cluster``.

    Returns:
        What it came to, and where the table is.
    """
    require_ray()

    def inspector(fitting: Fitting) -> Inspector:
        return Inspector(class_name, **places, **decision, **build, fitting=fitting)

    found = (source for source in sources if source is not None)
    return inspect_on_cluster(inspector, found, folder, who=Cluster(*who), **run), folder / RESULTS
