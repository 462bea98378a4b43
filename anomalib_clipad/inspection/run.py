"""Images through an inspector into a folder of results, in their order, while the next ones are looked at."""

from __future__ import annotations

import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from anomalib_clipad.images.content import Content, Stamp, content_at, stamp_of

from .finding import Finding
from .inspector import Inspector
from .picture_files import remove_pictures
from .records import Result
from .results import Results
from .sources import Source

_WRITERS = 2
_BEHIND = 16
"""How many findings may wait to be written."""
_CURRENT, _SHARE = 5.0, 20
"""While images are waited for, the page is as old as this many seconds, or this many times what it takes to write."""


class _Given(NamedTuple):
    """An image that was handed out, and what its file was then."""

    source: Source
    stamp: Stamp | None


class _Waiting(NamedTuple):
    """A finding whose pictures are being written."""

    finding: Finding
    given: _Given
    name: str
    drawn: Future[Content]


def inspect_all(
    inspector: Inspector,
    sources: Iterable[Source | None],
    results: Results,
    each: Callable[[Result], None] = lambda _: None,
) -> None:
    """Inspect all sources that are still to be.

    Args:
        inspector: Who does it.
        sources: The images; ``None`` among them says that there is none for now.
        results: Where findings go, in the order of the sources.
        each: Called with every result once it is written down.

    Raises:
        OSError: If something cannot be written.
    """
    _Run(inspector, results, each).go(sources)


class _Run:
    def __init__(self, inspector: Inspector, results: Results, each: Callable[[Result], None]) -> None:
        from tqdm import tqdm

        self._inspector, self._results, self._each = inspector, results, each
        self._progress = tqdm(unit=" images", dynamic_ncols=True, disable=not sys.stderr.isatty())
        self._given: dict[Path, deque[_Given]] = defaultdict(deque)
        self._images: dict[int, _Given] = {}
        self._waiting: deque[_Waiting] = deque()
        self._due = 0.0

    def go(self, sources: Iterable[Source | None]) -> None:
        with self._progress, ThreadPoolExecutor(_WRITERS) as writers:
            try:
                for finding in self._inspector.stream(self._handed_out(sources), self._fail):
                    given = self._given_for(finding.path)
                    name = self._results.claim(finding, given.source.name)
                    drawn = writers.submit(self._draw, finding, name, given)
                    self._waiting.append(_Waiting(finding, given, name, drawn))
                    self._write_down(_BEHIND)
                self._write_down(0)
            except BaseException:
                while self._waiting:  # what was found is written, also where one thing could not be
                    with suppress(Exception):
                        self._write_down(len(self._waiting) - 1)
                raise

    def _handed_out(self, sources: Iterable[Source | None]) -> Iterator[Any]:
        for source in sources:
            if source is None:
                self._write_down(0)
                self._stay_current()
                yield None
            elif self._results.wants(source.path, source.place, source.file):
                given = _Given(source, None if source.file is None else stamp_of(source.file))
                self._given[source.path].append(given)
                self._images[id(source.image)] = given
                yield source.image

    def _given_for(self, path: Path | None) -> _Given:
        assert path is not None
        given = self._given[path].popleft()
        self._forget(given)
        return given

    def _forget(self, given: _Given) -> None:
        del self._images[id(given.source.image)]
        if not self._given[given.source.path]:
            del self._given[given.source.path]

    def _fail(self, image: Any, error: ValueError) -> None:
        given = self._images[id(image)]
        path = given.source.path
        self._given[path] = deque(one for one in self._given[path] if one is not given)
        self._forget(given)
        self._results.fail(given.source.path, str(error), given.source.place)
        self._progress.update()

    def _draw(self, finding: Finding, name: str, given: _Given) -> Content:
        """Write pictures; what the file held when it was handed out, where it still does."""
        self._results.draw(finding, name)
        source = given.source
        return content_at(source.place, source.file or source.path, given.stamp)

    def _write_down(self, most: int) -> None:
        """Write findings down, in order, until no more than some wait, and those that can be without waiting."""
        while self._waiting and (len(self._waiting) > most or self._waiting[0].drawn.done()):
            finding, given, name, drawn = self._waiting.popleft()
            content = drawn.result()
            if not content.digest and self._results.grows and given.source.file and stamp_of(given.source.file):
                remove_pictures(self._results.folder, [name])  # it was written meanwhile, and will be given again
                continue
            self._each(self._results.append(finding, name, content))
            self._progress.update()

    def _stay_current(self) -> None:
        """Bring page and Parquet up to date, now and then."""
        start = time.monotonic()
        if start >= self._due:
            self._results.complete()
            self._due = time.monotonic() + max(_CURRENT, _SHARE * (time.monotonic() - start))
