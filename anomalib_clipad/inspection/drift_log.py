"""A watch over a calibration, from run to run: a file with a line for each calibration and for each image since."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from anomalib_clipad.images.content import digest_of_all
from anomalib_clipad.verdicts.drift import Drift

from .lines import Lines, whole_lines
from .lock import folder_lock
from .records import Result, read_results

_FORMAT = "anomalib_clipad drift, version 2"


class DriftLog:
    """The file of a watch. It knows whose scores it has, and an image of a run once, however often the run is resumed.

    Args:
        path: The file; begun where it is missing. It grows by a line for each image.
        scores: Image scores of the normal images (n,).
        identity: What tells the calibration from others: ``class_name``, and digests.

    Attributes:
        drift: The watch.
        begun_anew: Whether the file had another calibration of this class, whose watch has ended.

    Raises:
        ValueError: If the file is another, or is of another class.
    """

    def __init__(self, path: Path, scores: ArrayLike, identity: Mapping[str, Any]) -> None:
        self.drift = Drift(scores)
        self._path, self._identity = path, json.loads(json.dumps(identity))
        self._run, self._known = "", Counter[str]()
        self._size = self._read()

    @contextmanager
    def going_on(self, run: str = "", folder: Path | None = None) -> Iterator[DriftLog]:
        """Write to the file from now on.

        Args:
            run: Tells the run from others.
            folder: Of the run. What its record has and this file has not is taken in: the run was interrupted between
                the two.

        Raises:
            BlockingIOError: If another run writes to the file.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with folder_lock(self._path.parent, f".{self._path.name}.lock"):
            self._run, self._lines = run, Lines(self._path, self._size)
            with closing(self._lines):
                if self.begun_anew or not self._size:
                    self._lines.append(json.dumps({"format": _FORMAT, **self._identity}) + "\n")
                self._known = self._images_of(run)
                for result in () if folder is None else read_results(folder):
                    self.add(result)
                yield self

    def add(self, result: Result) -> bool:
        """Take in a result of the run, unless it was before; whether there is an alarm that was not there before."""
        image = _key(result)
        if self._known[image]:
            self._known[image] -= 1
            return False
        return self.update(result.score, image)

    def update(self, score: float, image: str = "") -> bool:
        """Take in the next image's score.

        Args:
            score: The image score.
            image: Tells the image from others of the run.

        Returns:
            Whether there is an alarm that was not there before.
        """
        before = self.drift.alarm
        self.drift.update(score)
        self._lines.append(json.dumps({"score": score, "run": self._run, "image": image}) + "\n")
        return self.drift.alarm and not before

    def _images_of(self, run: str) -> Counter[str]:
        """How often the watch over this calibration has each image of a run: a file may become what it was before."""
        known = Counter[str]()
        for line in map(json.loads, whole_lines(self._path)):
            if "format" in line:
                known.clear()
            elif line["run"] == run:
                known[line["image"]] += 1
        return known

    def _read(self) -> int:
        """Take in the file; how much of it is whole.

        Raises:
            ValueError: If it is another, or is of another class.
        """
        self.begun_anew, size = False, 0
        try:
            for line in whole_lines(self._path):
                self._take(json.loads(line))
                size += len(line)
            if not size and self._path.exists() and not _is_begun(self._path):
                self._take({"format": ""})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            msg = (
                f"{self._path} holds no watch over a calibration that this run can go on with ({error}). Name another "
                "file, or delete it to begin anew."
            )
            raise ValueError(msg) from error
        return size

    def _take(self, line: dict[str, Any]) -> None:
        if "score" in line:
            if not self.begun_anew:
                self.drift.update(line["score"])
            return
        if line.pop("format") != _FORMAT:
            msg = "it is of another version"
            raise ValueError(msg)
        named, own = line.get("class_name"), self._identity.get("class_name")
        if named != own:
            msg = f"it is that of class {named!r}, and this run looks for defects of {own!r}"
            raise ValueError(msg)
        self.drift = Drift(self.drift.calibration)
        self.begun_anew = line != self._identity


def _is_begun(path: Path) -> bool:
    """Whether a file is the beginning of a watch whose first line was cut off, or empty."""
    first = f'{{"format": "{_FORMAT}"'.encode()
    with path.open("rb") as file:
        start = file.read(len(first))
        return first.startswith(start) and b"\n" not in file.read()


def _key(result: Result) -> str:
    """What tells an image of a run from others."""
    file = result.file
    return digest_of_all([result.path] if file is None else [file.place, file.digest])
