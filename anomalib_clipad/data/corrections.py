"""What ticks teach: which images a person has called good, whatever a model had said, and which show defects."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .ticks import found

_ALARMS = {"look", "defective"}
_CALLED = {"good", "", *_ALARMS}
"""What a model may have called an image; nothing where it only sorted the images."""


class Corrections(NamedTuple):
    """What ticks say.

    Attributes:
        good: Images that are good.
        defects: Images that show defects.
        alarms: How many of the former were called defective, or to look at: false alarms.
        unsaid: How many rows say neither, such as those where only regions are marked.
    """

    good: tuple[Path, ...]
    defects: tuple[Path, ...]
    alarms: int
    unsaid: int

    @property
    def files(self) -> tuple[Path, ...]:
        """All images that are good or defective."""
        return (*self.good, *self.defects)


def read_corrections(files: Iterable[Path]) -> Corrections:
    """What the ticks of one page or of several say; an image that is ticked equally in several counts once.

    Args:
        files: ``ticks.csv`` of pages.

    Raises:
        FileNotFoundError: If a file, or an image that is ticked in it, is not there.
        ValueError: If a file holds no ticks of a run, or an image is ticked as good and as defective.
    """
    good, alarms, defects = dict[Path, None](), set[Path](), dict[Path, None]()
    unsaid = 0
    for file in files:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            table = csv.DictReader(opened)
            if not {"path", "label", "truth"} <= {*(table.fieldnames or ())}:
                msg = (
                    f"{file} holds no ticks. Expected the file that a page of `anomalib-clipad inspect` lets download."
                )
                raise ValueError(msg)
            rows = list(table)
        if "audit" in (table.fieldnames or ()):
            msg = (
                f"The ticks of {file} are of an audit, which measures a model and calibrates its miss rate: what "
                "measures does not teach. Teach with the ticks of a run."
            )
            raise ValueError(msg)
        for row in rows:
            truth, called = row["truth"], row["label"]
            if truth not in {"good", "defective", ""} or called not in _CALLED:
                msg = f"{file} says '{truth}' of {row['path']}, which the model called '{called}'. Download it anew."
                raise ValueError(msg)
            if not truth:
                unsaid += 1
                continue
            path = found(row, file)
            (defects if truth == "defective" else good)[path] = None
            if truth == "good" and called in _ALARMS:
                alarms.add(path)
    both = [path for path in defects if path in good]
    if both:
        msg = f"{both[0]} is ticked as good and as defective. Correct one of the ticks, and download them anew."
        raise ValueError(msg)
    return Corrections(tuple(good), tuple(defects), len(alarms), unsaid)
