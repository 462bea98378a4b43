"""`anomalib-clipad inspect`: from images to decisions, in files and on a page."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from anomalib_clipad.checks import check_counts
from anomalib_clipad.images.listing import check_folder
from anomalib_clipad.images.picture import MAX_PIXELS, Picture
from anomalib_clipad.inspection.audit import write_audit
from anomalib_clipad.inspection.dependencies import about_of, depends_on, plain
from anomalib_clipad.inspection.fitting import Fitting
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.page import PAGE
from anomalib_clipad.inspection.parts import PartRule
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.inspection.run import inspect_all
from anomalib_clipad.inspection.sources import Source, find
from anomalib_clipad.inspection.watching import watch as watched

from .arguments import CLUSTER
from .telling import called, tell

if TYPE_CHECKING:
    from anomalib_clipad.inspection.drift_log import DriftLog
    from anomalib_clipad.inspection.records import Result
    from anomalib_clipad.inspection.tables import Summary

_PICTURES = ("overlays", "masks", "maps", "coco")
"""Of what is written beside the tables, what ``Results`` writes."""


def inspect(
    images: list[str] | None = None,
    class_name: str | None = None,
    model: str | None = None,
    product: Path | None = None,
    settings: dict[str, Any] | None = None,
    decision: dict[str, Any] | None = None,
    written: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    batch_size: int = 8,
    workers: int = 2,
    threads: int | None = None,
    output: Path = Path("inspection"),
    resume: bool = False,
    overwrite: bool = False,
    watch: Path | None = None,
    engine: Literal["process", "ray"] = "process",
    audit: int | None = None,
    audit_seed: int | None = None,
    debug: bool = False,  # noqa: ARG001  # read by the command line
) -> None:
    """Look at images and decide which are defective.

    Ends with status 0 where every image could be read, else with 3; defects do not change it.

    Args:
        images: Files, folders, patterns, lists of paths (.txt, .parquet), videos, or - for paths on stdin.
        class_name: What the images show, such as hazelnut.
        model: Checkpoint (.ckpt) or exported file (.onnx, .xml, .pt), in place of a backbone. It has its settings
            already; an OpenVINO file takes `precision`.
        product: File of `anomalib-clipad product`.
        settings: Those by which a model is built.
        decision: What images are compared with, and what is called defective.
        written: What is written beside the tables.
        cluster: Where Ray works.
        batch_size: Images that are scored together.
        workers: Threads that read images.
        threads: CPU threads of torch; by default all.
        output: Folder of the results.
        resume: Go on with an interrupted run.
        overwrite: Remove what an earlier run has written.
        watch: Folder to wait for images in, until interrupted.
        engine: This process, or Ray: many processes, here or on many machines; tables only.
        audit: Look at none: draw so many images at random, and write a page on which to tick each of them.
        audit_seed: Of the draw of an audit; by default 0.
        debug: Show where an error comes from.
    """
    written, cluster = written or {}, cluster or {}
    if audit is not None or audit_seed is not None:
        unscored = {**(settings or {}), **(decision or {}), **written, **cluster, "threads": threads, "watch": watch}
        unscored |= {"model": model, "product": product, "resume": resume, "engine": engine == "ray"}
        most = unscored.pop("max_pixels", MAX_PIXELS)
        _check_audit(audit, unscored)
        kept = {"title": f"Audit of {class_name or 'images'}", "overwrite": overwrite, "max_pixels": most}
        _audit(_some_sources(images, None), output, audit or 0, audit_seed or 0, kept)
        return
    asked = {"class_name": class_name, "model": model, "product": product, **(settings or {}), **(decision or {})}
    alone = {**written, "threads": threads, "watch": watch, "mutual": asked.get("mutual")}
    _check_engine(engine, alone, cluster)
    _check_threads(threads, model)
    sources = _some_sources(images, watch)
    record = {"overwrite": overwrite, "resume": resume, "settings": {**plain(asked), "engine": engine}}
    run = _Run(asked, asked.pop("part", None), {"batch_size": batch_size, "workers": workers}, sources, output, record)
    summary = _on_cluster(run, cluster) if engine == "ray" else _here(run, written, watch)
    if summary.failed:
        sys.exit(3)


class _Run(NamedTuple):
    """What every run needs.

    Attributes:
        asked: What the inspector is made of.
        part: How pictures of a part are called.
        how: How it reads and scores.
        sources: The images.
        output: Folder of the results.
        record: Arguments of ``Results``.
    """

    asked: dict[str, Any]
    part: str | None
    how: dict[str, Any]
    sources: Iterator[Source | None]
    output: Path
    record: dict[str, Any]


def _on_cluster(run: _Run, cluster: Mapping[str, Any]) -> Summary:
    """A run of Ray."""
    from anomalib_clipad.scale.run import Cluster, inspect_on_cluster  # it takes torch

    def build(fitting: Fitting) -> Inspector:
        return Inspector(**run.asked, **run.how, fitting=fitting)

    who = Cluster(*(cluster.get(option.name) for option in CLUSTER))
    found = (source for source in run.sources if source is not None)
    with _quietly():
        summary, about = inspect_on_cluster(
            build, found, run.output, run.asked, who, called(), part=run.part, **run.record
        )
    tell(summary, about, run.output / "results.parquet")
    return summary


def _here(run: _Run, written: Mapping[str, Any], watch: Path | None) -> Summary:
    """A run of this process."""
    together: list[Source] = []
    sources, how = run.sources, {**run.asked, **run.how}
    if how.pop("mutual", False):
        together = _all_of(sources, watch)
        sources, how["mutual"] = iter(together), [source.image for source in together]
    with _quietly():
        inspector = Inspector(**how)
    parts = None if run.part is None else PartRule.of(run.part, inspector.model.normal)
    depends = depends_on(inspector, run.asked, [source.place for source in together])
    drift, with_page = written.get("drift"), written.get("page", True)
    log = None if drift is None else _watch_over(drift, inspector, depends)
    title = f"Inspection of {run.asked['class_name'] or 'images'}" if with_page else None
    about = about_of(inspector, called())
    given = {name: written[name] for name in _PICTURES if name in written} | run.record
    complete = False
    with ExitStack() as stack:
        results = stack.enter_context(
            Results(run.output, depends=depends, about=about, grows=watch is not None, page=title, parts=parts, **given)
        )
        each = _each(watch is not None, stack, log, results)
        with _until_interrupted():
            inspect_all(inspector, sources, results, each)
            complete = True
        summary = results.finish(complete)
    tell(summary, about, run.output / (PAGE if with_page else "results.csv"))
    if log is not None:
        print(log.drift)
    if not complete and watch is None:
        sys.exit("interrupted; go on with --resume")
    return summary


def _each(watching: bool, stack: ExitStack, log: DriftLog | None, results: Results) -> Callable[[Result], None]:
    """What is done with each result once it is written down."""
    if log is not None:
        stack.enter_context(log.going_on(results.key, results.folder))
        if log.begun_anew:
            print("The calibration is another than before: the watch over it begins anew.")

    def each(result: Result) -> None:
        if log is not None and log.add(result):
            print(f"\n{log.drift}", file=sys.stderr)
        if watching:
            rare = "" if result.p_value is None else f"  p-value {result.p_value:.3f}"
            remark = f"  ({result.remark})" if result.remark else ""
            verdict = f"  {result.verdict or result.label}" if result.decided else ""
            print(f"{result.path}  {result.score:.3f}{rare}{verdict}{remark}", flush=True)

    return each


def _check_audit(audit: int | None, unscored: Mapping[str, Any]) -> None:
    """Refuse what an audit, which scores no image, would pass over."""
    refused = [f"--{name}" for name, value in unscored.items() if value not in (None, False)]
    if audit is None:
        msg = "--audit_seed is the seed of an audit: pass --audit 200 with it, or leave it out."
        raise ValueError(msg)
    if refused:
        msg = f"An audit draws images and scores none: leave out {', '.join(refused)}."
        raise ValueError(msg)


def _audit(sources: Iterable[Source | None], output: Path, count: int, seed: int, kept: dict[str, Any]) -> None:
    """Draw images for an audit, and say what to do with them."""
    audit, passed = write_audit(output, (one for one in sources if one is not None), count, seed, **kept)
    for reason in passed:
        print(f"Passed over: {reason}", file=sys.stderr)
    print(
        f"{audit.drawn} of {audit.of} images, drawn by seed {audit.seed}. Open {output / PAGE}, tick each image, "
        "download the ticks, and pass them: "
        "--false-alarm-rate 0.05 --calibration FOLDER --miss-rate 0.1 --defects ticks.csv"
    )


def _check_engine(engine: str, alone: Mapping[str, Any], cluster: Mapping[str, Any]) -> None:
    """Refuse what one process does and a cluster does not, or the other way round."""
    given = cluster if engine == "process" else alone
    refused = [f"--{name}" for name, value in given.items() if value not in (None, False, "none")]
    if refused and engine == "process":
        msg = f"{', '.join(refused)}: for a cluster only. Add --engine ray, or leave out the rest."
        raise ValueError(msg)
    if refused:
        msg = f"On a cluster results are tables only: leave out {', '.join(refused)}, or --engine."
        raise ValueError(msg)


def _check_threads(threads: int | None, model: str | None) -> None:
    """Set torch's threads, if it is torch that computes."""
    check_counts(threads=threads)
    if threads is None:
        return
    if model is not None and model.endswith((".onnx", ".xml")):
        msg = f"--threads sets the threads of torch, and {model} runs without it. Leave one of them out."
        raise ValueError(msg)
    import torch

    torch.set_num_threads(threads)


def _some_sources(images: list[str] | None, folder: Path | None) -> Iterator[Source | None]:
    """The images of a run; what is not there is said before anything is loaded or written."""
    if not images and folder is None:
        msg = "Name images to look at: files, folders, patterns, or a folder to --watch."
        raise ValueError(msg)
    if folder is not None:
        check_folder(folder)
    named = find(images or [])
    arriving = () if folder is None else watched(folder)
    return chain([next(named)] if images else [], named, arriving)


def _all_of(sources: Iterable[Source | None], folder: Path | None) -> list[Source]:
    """All images of a run whose images judge each other, which are read twice."""
    found = [] if folder is not None else [source for source in sources if source is not None]
    if folder is not None or any(isinstance(source.image, Picture) for source in found):
        msg = "mutual reads its images twice, so they have to be files, no videos and no folder to watch."
        raise ValueError(msg)
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what a model tells of itself: a bar and a table are all there is on the terminal."""
    logger = logging.getLogger("anomalib_clipad")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _until_interrupted() -> Iterator[None]:
    """End quietly at Ctrl-C and SIGTERM: what was found is written."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _watch_over(path: Path, inspector: Inspector, depends: Mapping[str, str]) -> DriftLog:
    """The watch over the calibration of an inspector that a file keeps."""
    from anomalib_clipad.inspection.drift_log import DriftLog

    if inspector.model.normal is None:
        msg = "drift watches whether the calibration still fits, and there is none: pass calibration."
        raise ValueError(msg)
    return DriftLog(
        path, inspector.model.normal.image_scores, {"class_name": inspector.model.class_name, "depends": depends}
    )
