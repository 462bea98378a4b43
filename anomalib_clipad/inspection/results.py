"""The output folder of an inspection: tables that grow as images are inspected, and pictures beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path, PurePath
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, get_args

from .lines import Lines, as_rows, readable
from .lock import folder_lock
from .names import Names
from .picture_files import Maps, Overlays, PictureFiles, remove_pictures
from .recovery import Recovered, recover
from .run_folder import COCO_ENTRIES, NAMES, take_folder
from .tables import (
    FAILED_COLUMNS,
    REGION_COLUMNS,
    RESULT_COLUMNS,
    Summary,
    read_results,
    region_rows,
    result_row,
    summarize,
    write_parquet,
)

if TYPE_CHECKING:
    from .finding import Finding

_COLUMNS: dict[str, tuple[str, ...]] = {
    NAMES: (),
    COCO_ENTRIES: (),
    "failed.csv": FAILED_COLUMNS,
    "regions.csv": REGION_COLUMNS,
    "results.csv": RESULT_COLUMNS,
}
"""Files that grow. That of results is last: where it has a line, so have the others."""


class Results:
    """Writes findings to a folder. A run that is interrupted, by whatever, loses nothing and can be resumed.

    A row is added when the pictures of its image are complete. Findings may be added by several threads.

    Args:
        folder: Output folder; created where it is missing.
        overwrite: Remove what an earlier run has written to the folder, and nothing else.
        resume: Go on with an earlier run, if there is one.
        overlays: Of which images an overlay is written.
        masks: Whether masks are, as PNG of 0 and 255.
        maps: Whether maps are, as PNG of 16 bits, 65535 being 1, or as ``.npy`` of float32.
        coco: Whether ``coco.json`` is.
        thumbnails: Whether thumbnails are, for a page.
        settings: What else has to be the same when a run is resumed, such as model and threshold; plain data for JSON.

    Attributes:
        done: Paths of which a resumed run has results, as text. What has failed is none of them and is tried again.

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
        thumbnails: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        for name, given, choices in (("overlays", overlays, Overlays), ("maps", maps, Maps)):
            if given not in get_args(choices):
                msg = f"{name} has to be one of {', '.join(get_args(choices))}; got {given!r}."
                raise ValueError(msg)
        if overwrite and resume:
            msg = "A run is either resumed or overwritten; got both."
            raise ValueError(msg)
        self.folder = folder
        self.done: set[str] = set()
        self._overwrite, self._resume, self._coco = overwrite, resume, coco
        self._pictures = PictureFiles(folder, overlays, masks, maps, thumbnails)
        written = {"overlays": overlays, "masks": masks, "maps": maps, "coco": coco, "thumbnails": thumbnails}
        self._settings: dict[str, Any] = json.loads(json.dumps({**(settings or {}), **written}))
        self._tables: dict[str, Lines] = {}
        self._names = Names()
        self._lock = Lock()
        self._images = self._failed = 0
        self._changed = True

    def __enter__(self) -> Results:
        """Take the folder.

        Raises:
            BlockingIOError: If another run writes to it.
            FileExistsError: If it holds files that may not be removed.
            NotADirectoryError: If it is a file.
            ValueError: If the run that is resumed had other settings, or its files are damaged.
        """
        if self.folder.exists() and not self.folder.is_dir():
            msg = f"Results go to a folder; {self.folder} is a file. Name another."
            raise NotADirectoryError(msg)
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(folder_lock(self.folder))
            resumed = take_folder(self.folder, self._settings, self._overwrite, self._resume)
            earlier = recover(self.folder, self._coco) if resumed else Recovered(0, set(), set(), {})
            self._images, self.done, self._names = earlier.images, earlier.done, Names(earlier.names)
            for name, columns in _COLUMNS.items():
                if name == COCO_ENTRIES and not self._coco:
                    continue
                lines = Lines(self.folder / name, earlier.sizes.get(name, 0))
                self._tables[name] = stack.enter_context(closing(lines))
                if columns and not lines.size:
                    lines.append(as_rows([columns]))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Complete the files, also after an interruption, and let go of the folder."""
        with self._stack:
            if error is None:
                with self._explained():
                    self._complete()
            else:
                with suppress(OSError):  # what has ended the run is what the user is told
                    self._complete()

    def add(self, finding: Finding, name: PurePath) -> None:
        """Write a finding.

        Args:
            finding: What was found.
            name: Path of the image below the folder it was found in. Its pictures are called so, with a number if those
                of another image are.

        Raises:
            OSError: If that is not possible, say since the disk is full; the message says what was written.
        """
        wanted = self._pictures.wanted(finding)
        with self._explained():
            with self._lock:
                claimed = self._names.claim(name)
                if wanted:
                    self._tables[NAMES].append(f"{claimed}\n")
            try:
                self._pictures.write(finding, claimed)
                self._append(finding, name, claimed)
            except BaseException:
                if wanted:
                    remove_pictures(self.folder, [claimed])
                raise

    def fail(self, path: str | os.PathLike[str], reason: str) -> None:
        """Write down that an image could not be inspected.

        Raises:
            OSError: If that is not possible; the message says what was written.
        """
        with self._explained(), self._lock:
            self._tables["failed.csv"].append(as_rows([[readable(os.fspath(path)), readable(reason)]]))
            self._failed += 1

    def finish(self) -> Summary:
        """Complete the files and sum up.

        Raises:
            OSError: If that is not possible; the message says what was written.
        """
        with self._explained():
            self._complete()
            return summarize(self.folder, read_results(self.folder / "results.csv"), self._failed)

    def _append(self, finding: Finding, name: PurePath, claimed: str) -> None:
        path = os.fspath(finding.path or name)
        texts = {"regions.csv": as_rows(region_rows(finding, path))}
        if self._coco:
            from .coco import coco_entry

            texts[COCO_ENTRIES] = coco_entry(finding, name)
        texts["results.csv"] = as_rows([result_row(finding, path, claimed)])
        with self._lock:
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

    def _complete(self) -> None:
        """Write what is made of the tables."""
        with self._lock:
            if not self._changed:
                return
            write_parquet(self.folder / "results.csv", self.folder / "results.parquet")
            if self._coco:
                from .coco import write_coco

                write_coco(self.folder / COCO_ENTRIES, self.folder / "coco.json")
            self._changed = False

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
