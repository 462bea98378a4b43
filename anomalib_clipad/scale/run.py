"""A run on a cluster, from what a user names to a folder of results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from anomalib_clipad.images.listing import files_in
from anomalib_clipad.inspection.lock import folder_lock
from anomalib_clipad.inspection.run_folder import take_folder
from anomalib_clipad.inspection.sources import Source
from anomalib_clipad.inspection.tables import Summary

from . import engine, fits
from .cluster import cluster, ship
from .engine import Pool
from .luggage import Luggage
from .rows import summarize


class Fit(NamedTuple):
    """What an inspector is fitted to, and how it decides then.

    Attributes:
        normal: Folder of normal images to compare with.
        calibration: Folder of other normal images.
        false_alarm_rate: As of ``Inspector``.
        threshold: As of ``Inspector``.
    """

    normal: Path | None = None
    calibration: Path | None = None
    false_alarm_rate: float | None = None
    threshold: float | None = None


class Cluster(NamedTuple):
    """Who works.

    Attributes:
        address: As of ``cluster``.
        workers: How many actors; by default all the cluster has room for.
        gpus: GPUs of each.
        block: Images that are written and checkpointed together.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float = 0
    block: int = engine.BLOCK


def inspect_on_cluster(
    luggage: Luggage,
    fit: Fit,
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
        luggage: An inspector, packed.
        fit: What it is fitted to.
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
    if overwrite and resume:
        msg = "A run is either resumed or overwritten; got both."
        raise ValueError(msg)
    with cluster(who.address, who.workers) as workers:
        folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(folder):
            take_folder(folder, json.loads(json.dumps(settings)), overwrite, resume)
            engine.list_images(folder, sources, who.block)
            packed = fitted(luggage, fit)
            engine.run(folder, ship(packed), Pool(workers, who.gpus))
            return summarize(folder)


def fitted(luggage: Luggage, fit: Fit) -> Luggage:
    """An inspector that was fitted by Ray tasks."""
    inspector = luggage.inspector if luggage.file is None else luggage.unpack()
    known = [] if fit.normal is None else fits.remember(inspector, _images(fit.normal))
    if fit.calibration is not None:
        fits.calibrate(inspector, luggage, _images(fit.calibration), fit.false_alarm_rate, known)
    inspector.decide_by(fit.threshold, fit.false_alarm_rate)
    if luggage.file is None:
        return luggage
    luggage.inspector.__dict__.update({name: value for name, value in vars(inspector).items() if name != "model"})
    return replace(luggage, normal=inspector.model.normal)


def _images(place: Path) -> list[Path]:
    return files_in(place) if place.is_dir() else [place]
