"""`anomalib-clipad inspect`: from images to decisions, in files and on a page."""

from __future__ import annotations

import logging
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path, PurePath
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, Literal, cast

from anomalib_clipad.images.picture import MAX_PIXELS
from anomalib_clipad.inspection.inspector import Inspector
from anomalib_clipad.inspection.results import Results
from anomalib_clipad.inspection.run_page import write_run_page
from anomalib_clipad.inspection.sources import Source, find
from anomalib_clipad.inspection.sources import watch as watched

if TYPE_CHECKING:
    from anomalib_clipad.inspection.finding import Finding
    from anomalib_clipad.inspection.tables import Summary

_WRITERS = 2
_BEHIND = 16
"""How many findings may wait to be written."""


def inspect(
    images: list[str] | None = None,
    class_name: str | None = None,
    model: str | None = None,
    product: str | None = None,
    backbone: str | None = None,
    pretrained: str | None = None,
    image_size: int | None = None,
    prompts: str | None = None,
    text_weight: float | None = None,
    tiles: list[int] | None = None,
    adapter: str | None = None,
    precision: str | None = None,
    normal: Path | None = None,
    mutual: bool = False,
    pool: int = 100,
    calibration: Path | None = None,
    false_alarm_rate: float | None = None,
    threshold: float | None = None,
    ignore: Path | None = None,
    min_area: int = 0,
    max_pixels: int = MAX_PIXELS,
    batch_size: int = 8,
    workers: int = 2,
    threads: int | None = None,
    output: Path = Path("inspection"),
    overlays: Literal["defective", "all", "none"] = "defective",
    masks: bool = False,
    maps: Literal["none", "png", "npy"] = "none",
    coco: bool = False,
    page: bool = True,
    drift: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watch: Path | None = None,
    engine: Literal["process", "ray"] = "process",
    ray_address: str | None = None,
    actors: int | None = None,
    gpus: float = 0,
    block: int = 256,
    debug: bool = False,  # noqa: ARG001  # read by the command line
) -> None:
    """Look at images and decide which are defective.

    Ends with status 0 where every image could be read, else with 3; defects do not change it.

    Args:
        images: Files, folders, patterns, lists of paths (.txt, .parquet), videos, or - for paths on stdin.
        class_name: What the images show, such as hazelnut.
        model: Checkpoint (.ckpt) or exported file (.onnx, .xml, .pt), in place of a backbone.
        product: File of `anomalib-clipad product`.
        backbone: CLIP model, as of ClipAD; ViT-B-16-plus-240 by default.
        pretrained: Weights of the backbone.
        image_size: Height and width in pixels at which the model sees images.
        prompts: industrial, medical, or a YAML file of states and templates.
        text_weight: Share of the text in [0, 1] where there are normal images.
        tiles: Rows and columns of tiles, for small defects in large images.
        adapter: Trained layers of SDP+.
        precision: Number format of the image tower; of an OpenVINO file, its INFERENCE_PRECISION_HINT.
        normal: Folder of normal images to compare with.
        mutual: Let the images judge each other; none needs to be known as normal.
        pool: How many images at most are compared with, where they judge each other.
        calibration: Folder of other normal images, which set the threshold.
        false_alarm_rate: Largest share of normal images that are called defective.
        threshold: Score from which on an image is defective, in place of 0.5.
        ignore: Mask of what is never looked at, white.
        min_area: Smaller regions do not count, in pixels.
        max_pixels: Larger images are refused.
        batch_size: Images that are scored together.
        workers: Threads that read images.
        threads: CPU threads of torch; by default all.
        output: Folder of the results.
        overlays: Of which images an overlay is written.
        masks: Write masks.
        maps: Write maps, as PNG of 16 bits or as .npy.
        coco: Write coco.json.
        page: Write index.html.
        drift: State file of a watch over the calibration, which goes on from run to run.
        resume: Go on with an interrupted run.
        overwrite: Remove what an earlier run has written.
        watch: Folder to wait for images in, until interrupted.
        engine: This process, or Ray: many processes, here or on many machines; tables only.
        ray_address: Cluster: auto, host:6379 or ray://host:10001; by default this machine alone.
        actors: Inspectors on the cluster; by default one for each CPU.
        gpus: GPUs of each.
        block: Images that are written and checkpointed together by Ray.
        debug: Show where an error comes from.
    """
    if not images and watch is None:
        msg = "Name images to look at: files, folders, patterns, or a folder to --watch."
        raise ValueError(msg)
    chosen: dict[str, Any] = {
        "backbone": backbone,
        "pretrained": pretrained,
        "image_size": image_size,
        "prompts": prompts,
        "text_weight": text_weight,
        "tiles": tiles,
        "adapter": adapter,
        "precision": precision,
    }
    decision: dict[str, Any] = {"false_alarm_rate": false_alarm_rate, "threshold": threshold, "min_area": min_area}
    places: dict[str, Any] = {"model": model, "product": product, "references": normal}
    places |= {"calibration": calibration, "ignore": ignore}
    settings = {"class_name": class_name, **chosen, **decision, "mutual": mutual, "pool": pool}
    settings |= {name: None if place is None else str(place) for name, place in places.items()}
    sources = _sources(images or [], watch)
    if watch is None:
        sources = chain([next(sources)], sources)  # what is not there is said before anything is loaded or written
    build = {name: value for name, value in chosen.items() if value is not None}
    build |= {"max_pixels": max_pixels, "batch_size": batch_size, "workers": workers}
    if engine == "ray":
        from .on_cluster import on_cluster  # it takes torch

        _check_tables_only(watch=watch, mutual=mutual, drift=drift, masks=masks, maps=maps != "none", coco=coco)
        run: dict[str, Any] = {"folder": output, "overwrite": overwrite, "resume": resume}
        run |= {"settings": {**settings, "engine": engine}, "who": (ray_address, actors, gpus, block)}
        with _quietly():
            summary, table = on_cluster(sources, class_name, places, decision, build, **run)
        _tell(summary, table)
        sys.exit(3 if summary.failed else 0)
    together = _all_of(sources, watch) if mutual else None
    if together is not None:
        sources = iter(together)
    if threads is not None and (model is None or not model.endswith((".onnx", ".xml"))):
        import torch

        torch.set_num_threads(threads)
    with _quietly():
        together_images = None if together is None else [source.image for source in together]
        inspector = Inspector(class_name, **places, **decision, mutual=together_images, pool=pool, **build)
    drifting = None if drift is None else DriftWatch(drift, inspector)
    kinds: dict[str, Any] = {"overlays": overlays, "masks": masks, "maps": maps, "coco": coco, "thumbnails": page}
    complete = False
    with Results(output, overwrite=overwrite, resume=resume, **kinds, settings=settings) as results:
        with _until_interrupted():
            inspect_all(
                inspector,
                (one for one in sources if one is None or str(one.path) not in results.done),
                results,
                drifting,
            )
            complete = True
        summary = results.finish()
        written = write_run_page(output, f"Inspection of {class_name or 'images'}") if page else None
    _tell(summary, written)
    if drifting is not None:
        drifting.finish()
    if not complete and watch is None:
        sys.exit("interrupted; go on with --resume")
    if summary.failed:
        sys.exit(3)


def _check_tables_only(**given: Any) -> None:
    refused = [f"--{name}" for name, value in given.items() if value]
    if refused:
        msg = f"On a cluster results are tables only: leave out {', '.join(refused)}, or --engine."
        raise ValueError(msg)


def _sources(images: list[str], folder: Path | None) -> Iterator[Source | None]:
    yield from find(images)
    if folder is not None:
        yield from watched(folder)


def _all_of(sources: Iterable[Source | None], folder: Path | None) -> list[Source]:
    """All images of a run whose images judge each other, which are read twice."""
    found = [] if folder is not None else [source for source in sources if source is not None]
    if folder is not None or any(not isinstance(source.image, Path) for source in found):
        msg = "mutual reads its images twice, so they have to be files, no videos and no folder to watch."
        raise ValueError(msg)
    return found


def inspect_all(
    inspector: Inspector, sources: Iterable[Source | None], results: Results, drift: DriftWatch | None = None
) -> None:
    """Inspect all sources; files are written while the next images go through the tower."""
    from tqdm import tqdm

    names: dict[Path, PurePath] = {}
    slots = BoundedSemaphore(_BEHIND)
    progress = tqdm(unit=" images", dynamic_ncols=True, disable=not sys.stderr.isatty())

    def opened() -> Iterator[Any]:
        for source in sources:
            if source is not None:
                names[source.path] = source.name
            yield None if source is None else source.image

    def fail(path: Any, error: ValueError) -> None:
        results.fail(path, str(error))
        progress.update()

    def write(finding: Finding) -> None:
        try:
            path = cast("Path", finding.path)
            results.add(finding, names.pop(path, PurePath(path.name)))
            progress.update()
        finally:
            slots.release()

    with progress, ThreadPoolExecutor(_WRITERS) as writers:
        pending: deque[Future[None]] = deque()
        for finding in inspector.stream(opened(), fail):
            if drift is not None:
                drift.update(finding)
            slots.acquire()
            pending.append(writers.submit(write, finding))
            while pending and pending[0].done():
                pending.popleft().result()
        for future in pending:
            future.result()


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
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


class DriftWatch:
    """A watch over the calibration whose state is in a file.

    Args:
        path: The file; it is begun where it is missing.
        inspector: A calibrated one.

    Raises:
        ValueError: If the inspector is not calibrated, or the file is damaged.
    """

    def __init__(self, path: Path, inspector: Inspector) -> None:
        from anomalib_clipad.verdicts.drift import Drift

        if inspector.model.normal is None:
            msg = "drift watches whether the calibration still fits, and there is none: pass calibration."
            raise ValueError(msg)
        self._path = path
        self._state = Drift.load(path) if path.exists() else Drift(inspector.model.normal.image_scores)

    def update(self, finding: Finding) -> None:
        """Take in the next finding, and warn where that is the one too many."""
        known = self._state.alarm
        if self._state.update(finding.score) and not known:
            print(f"\n{self._state}", file=sys.stderr)

    def finish(self) -> None:
        """Keep the state, and say how it stands."""
        self._state.save(self._path)
        print(self._state)


def _tell(summary: Summary, page: Path | None) -> None:
    """How many, how many defective, the worst, and where the files are."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{summary.images} images, {summary.defective} defective, {summary.failed} not readable")
    table.add_column("image", overflow="fold")
    for name in ("score", "p-value", "label", "regions"):
        table.add_column(name, justify="right")
    for row in summary.worst:
        p_value = "" if row.p_value is None else f"{row.p_value:.3f}"
        table.add_row(Text(row.path), f"{row.score:.3f}", p_value, row.label, str(row.regions))
    console = Console()
    console.print(table)
    console.print(f"{page or summary.folder / 'results.csv'}", soft_wrap=True, highlight=False, markup=False)
