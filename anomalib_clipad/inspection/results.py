"""The output folder of an inspection: a record that grows as images are inspected, tables and pictures beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, get_args

from anomalib_clipad.images.content import Content, content_of, digest_of, stamp_of
from anomalib_clipad.storage import atomic_folder

from .coco import write_coco
from .lines import Lines, as_rows, readable
from .lock import folder_lock
from .names import Names
from .order import put_in_order
from .parts import Part, PartRule, summary_of, write_parts
from .picture_files import Maps, Overlays, PictureFiles, remove_pictures, tidy
from .records import RECORDS, Result, as_line, read_results, result_of
from .recovery import Recovered, recover
from .run_folder import NAMES, new_run, take_folder
from .run_page import write_run_page
from .tables import (
    FAILED_COLUMNS,
    REGION_COLUMNS,
    RESULT_COLUMNS,
    Summary,
    region_rows,
    result_row,
    summarize,
    write_parquet,
)

if TYPE_CHECKING:
    from .finding import Finding

_COLUMNS: dict[str, tuple[str, ...]] = {
    NAMES: (),
    RECORDS: (),
    "failed.csv": FAILED_COLUMNS,
    "regions.csv": REGION_COLUMNS,
    "results.csv": RESULT_COLUMNS,
}
"""Files that grow. What is in the record counts; a run that is resumed makes the tables of it anew."""


class Results:
    """Writes findings to a folder. A run that is interrupted, by whatever, loses nothing and can be resumed.

    A line is added when the pictures of its image are complete. Findings may be added by several threads; the record
    has them in the order in which they are added.

    Args:
        folder: Output folder; created where it is missing.
        overwrite: Remove what an earlier run has written to the folder, and nothing else.
        resume: Go on with an earlier run, if there is one.
        overlays: Of which images an overlay is written.
        masks: Whether masks are, as PNG of 0 and 255.
        maps: Whether maps are, as PNG of 16 bits, 65535 being 1, or as ``.npy`` of float32.
        coco: Whether ``coco.json`` is.
        page: Title of ``index.html``, if it is to be written.
        parts: Judges parts that several pictures show, for ``parts.csv``.
        parquet: Writes ``results.parquet`` of the folder and of what has failed.
        grows: Whether images arrive while the run goes on. Then a file that is rewritten is an image of its own; else
            what was found in it last counts.
        settings: What else has to be the same when a run is resumed, such as the threshold; plain data for JSON.
        depends: Digests of contents that have to be the same, by what they are called.
        about: What there is to say of the verdicts: ``decided``, ``decision`` and ``notes``, for the page.

    Attributes:
        grows: As given.
        key: Tells the run from all others, and is that of the run that is resumed.

    Raises:
        ValueError: If an argument is none of its choices, or a run is to be both resumed and overwritten.
    """

    def __init__(
        self,
        folder: Path,
        *,
        overwrite: bool = False,
        resume: bool = False,
        overlays: Overlays = "defective",
        masks: bool = False,
        maps: Maps = "none",
        coco: bool = False,
        page: str | None = None,
        parts: PartRule | None = None,
        parquet: Callable[[Path, Mapping[str, str]], None] = write_parquet,
        grows: bool = False,
        settings: Mapping[str, Any] | None = None,
        depends: Mapping[str, str] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        for name, given, choices in (("overlays", overlays, Overlays), ("maps", maps, Maps)):
            if given not in get_args(choices):
                msg = f"{name} has to be one of {', '.join(get_args(choices))}; got {given!r}."
                raise ValueError(msg)
        if overwrite and resume:
            msg = "A run is either resumed or overwritten; got both."
            raise ValueError(msg)
        self.folder = folder
        self._overwrite, self._resume, self._coco, self._page, self.grows = overwrite, resume, coco, page, grows
        self._parquet, self._rule, self._parts = parquet, parts, list[Part]()
        self._pictures = PictureFiles(folder, overlays, masks, maps, page is not None)
        written = {"overlays": overlays, "masks": masks, "maps": maps, "coco": coco, "page": page is not None}
        self._run = new_run({**(settings or {}), **written, "grows": grows}, depends or {}, about or {})
        self._tables: dict[str, Lines] = {}
        self._lock = RLock()
        self._changed, self._outdated = True, False
        """Whether there is something to complete, and whether ``failed.csv`` has rows that no longer hold."""

    def __enter__(self) -> Results:
        """Take the folder.

        Raises:
            BlockingIOError: If another run writes to it.
            FileExistsError: If it holds files that may not be removed.
            NotADirectoryError: If it is a file.
            ValueError: If the run that is resumed had other settings or depends on other contents, or its record is
                damaged.
        """
        if self.folder.exists() and not self.folder.is_dir():
            msg = f"Results go to a folder; {self.folder} is a file. Name another."
            raise NotADirectoryError(msg)
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(folder_lock(self.folder))
            earlier = take_folder(self.folder, self._run, self._overwrite, self._resume)
            self._run, self._resumed = earlier or self._run, earlier is not None
            found = recover(self.folder) if self._resumed else Recovered(0, {}, set(), {}, {})
            self._images, self._seen = found.images, found.seen
            self._failed = {self._leads_to(path): (path, reason) for path, reason in found.failed.items()}
            self._names, self._ranks = Names(found.names), dict[str, int]()
            self._stale: set[str | None] = set()
            self._write_failed()
            stack.callback(self._close)
            self._open({**found.sizes, "failed.csv": (self.folder / "failed.csv").stat().st_size})
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Complete the files, also after an interruption, and let go of the folder."""
        with self._stack:
            if error is None:
                self.complete()
            else:
                with suppress(OSError):  # what has ended the run is what the user is told
                    self.complete()

    @property
    def key(self) -> str:
        """See the class."""
        return self._run.key

    def wants(self, path: PurePath, place: str, file: Path | None) -> bool:
        """Whether an image is still to be looked at: not if what its file holds has been.

        Args:
            path: What the image is called.
            place: Tells where it is.
            file: Its file.
        """
        if not self._resumed and not self.grows:
            return True
        self._ranks.setdefault(place, len(self._ranks))
        seen = self._seen.get(place)
        if seen is None or file is None or seen.stamp is None:
            return True
        stamp = stamp_of(file)
        if stamp != seen.stamp and digest_of(file, stamp) != seen.digest:
            return True
        self._passed(self.called(path))
        return False

    def add(self, finding: Finding, name: PurePath, file: Content | None = None) -> None:
        """Write a finding.

        Args:
            finding: What was found.
            name: Path of the image below the folder it was found in. Its pictures are called so, with a number if those
                of another image are.
            file: What its file held; by default what it holds now.

        Raises:
            OSError: If that is not possible, say since the disk is full; the message says what was written.
        """
        claimed = self.claim(finding, name)
        self.draw(finding, claimed)
        self.append(finding, claimed, file)

    def claim(self, finding: Finding, name: PurePath) -> str:
        """A name for the pictures of a finding; the first step of ``add``, to be taken in the order of the images."""
        with self._explained(), self._lock:
            claimed = self._names.claim(name)
            if self._pictures.wanted(finding):
                self._tables[NAMES].append(f"{claimed}\n")
            return claimed

    def draw(self, finding: Finding, claimed: str) -> None:
        """Write the pictures of a finding; the second step, which several threads may take at once."""
        with self._explained(), self._undone(claimed):
            self._pictures.write(finding, claimed)

    def append(self, finding: Finding, claimed: str, file: Content | None = None) -> Result:
        """Write a finding down; the last step, to be taken in the order of the images."""
        path = finding.path or Path(claimed)
        result = result_of(finding, self.called(path), claimed, file or content_of(path), self._coco)
        with self._undone(claimed):
            self.write(result)
        return result

    def write(self, result: Result) -> None:
        """Write down what was found, by this process or another; as ``append``."""
        texts = {
            RECORDS: as_line(result),
            "regions.csv": as_rows(region_rows(result)),
            "results.csv": as_rows([result_row(result)]),
        }
        with self._explained(), self._lock:
            before = {table: self._tables[table].size for table in texts}
            try:
                for table, text in texts.items():
                    self._tables[table].append(text)
            except BaseException:
                for table, size in before.items():
                    self._tables[table].truncate(size)
                raise
            self._images += 1
            self._changed = True
            if result.file is not None and (self._resumed or self.grows):
                self._seen[result.file.place] = result.file
            self._passed(result.path)

    def fail(self, path: str | os.PathLike[str], reason: str, place: str | None = None) -> None:
        """Write down that an image could not be inspected.

        Args:
            path: What it is called.
            reason: Why.
            place: Tells where it is; what was found there before no longer counts.

        Raises:
            OSError: If that is not possible; the message says what was written.
        """
        called, reason = self.called(Path(path)), readable(reason)
        with self._explained(), self._lock:
            if place in self._seen:
                self._stale.add(place)
            file = self._leads_to(called)
            before = self._failed.pop(file, None)
            self._failed[file] = called, reason
            self._changed, self._outdated = True, self._outdated or before is not None
            if before is None:
                self._tables["failed.csv"].append(as_rows([[called, reason]]))

    def complete(self) -> None:
        """Write what is made of the record so far: Parquet, ``coco.json`` and the page; and what still fails.

        Raises:
            OSError: If that is not possible; the message says what was written.
        """
        with self._explained(), self._lock:
            self._complete()

    def finish(self, whole: bool = True) -> Summary:
        """Put the record in the order of the images, complete the files and sum up.

        Args:
            whole: Whether all images were given. Else those that were not come last, and not first.

        Raises:
            OSError: If that is not possible; the message says what was written.
        """
        with self._explained(), self._lock:
            if self._resumed and not self.grows:
                with self._closed(*_COLUMNS):
                    gone = put_in_order(self.folder, self._ranks, self._stale, -1 if whole else len(self._ranks))
                    tidy(self.folder, remove_pictures(self.folder, gone))
                self._changed = True
            self._complete()
            said = [] if self._rule is None else summary_of(self._parts, self._rule.rate)
            return summarize(self.folder, read_results(self.folder), len(self._failed), said)

    def _complete(self) -> None:
        if not self._changed:
            return
        if self._outdated:
            with self._closed("failed.csv"):
                self._write_failed()
        self._parquet(self.folder, dict(self._failed.values()))
        if self._coco:
            write_coco(self.folder, once=not self.grows)
        if self._rule is not None:
            self._parts = write_parts(self.folder, self._rule, [path for path, _ in self._failed.values()])
        if self._page is not None:
            write_run_page(self.folder, self._page, self._rule, self._parts)
        self._changed = self._outdated = False

    def called(self, path: PurePath) -> str:
        """The path of an image in tables: as it was given, unless that would mean another file from elsewhere."""
        elsewhere = not path.is_absolute() and str(Path.cwd()) != self._run.folder
        return readable(os.fspath(Path(path).absolute() if elsewhere else path))

    def _leads_to(self, called: str) -> str:
        """The real file of a path in tables; where there is none, the whole path."""
        path = os.path.normpath(Path(self._run.folder, called))
        return os.path.realpath(path) if os.path.exists(path) else path  # noqa: PTH110  # of a name that is too long, too

    def _passed(self, called: str) -> None:
        """Take an image off those that failed."""
        with self._lock:
            if self._failed and self._failed.pop(self._leads_to(called), None) is not None:
                self._changed = self._outdated = True

    def _write_failed(self) -> None:
        with atomic_folder(self.folder) as new:
            text = as_rows([FAILED_COLUMNS, *self._failed.values()])
            (new / "failed.csv").write_bytes(text.encode())

    def _open(self, sizes: Mapping[str, int]) -> None:
        """Open files that are to grow; those of no size get their columns."""
        for name, columns in _COLUMNS.items():
            if name not in self._tables:
                lines = self._tables[name] = Lines(self.folder / name, sizes.get(name, 0))
                if columns and not lines.size:
                    lines.append(as_rows([columns]))

    @contextmanager
    def _closed(self, *names: str) -> Iterator[None]:
        """Without some of the files that grow, which are replaced meanwhile; then they are open again in any case."""
        for name in names:
            self._tables.pop(name).close()
        try:
            yield
        finally:
            self._open({name: (self.folder / name).stat().st_size for name in names})

    def _close(self) -> None:
        while self._tables:
            self._tables.popitem()[1].close()

    @contextmanager
    def _undone(self, claimed: str) -> Iterator[None]:
        """Without pictures, if something goes wrong."""
        try:
            yield
        except BaseException:
            remove_pictures(self.folder, [claimed])
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
            msg = (
                f"{what}. {self._images} images are complete in {self.folder / 'results.csv'}; when the cause is "
                "removed, resume the run to go on from there."
            )
            raise (OSError(error.errno, msg) if error.errno else OSError(msg)) from error
