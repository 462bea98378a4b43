"""What ticks teach: which images a person has called good that a model had not, and which show defects."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .ticks import found

_CALLED = {"good", "look", "defective", ""}
"""What a model may have called an image; nothing where it only sorted the images."""


class Corrections(NamedTuple):
    """What ticks say.

    Attributes:
        alarms: Images that are good and were not called good: false alarms.
        right: Images that are good and were called good.
        defects: Images that show defects.
        unsaid: How many rows say neither, such as those where only regions are marked.
    """

    alarms: tuple[Path, ...]
    right: tuple[Path, ...]
    defects: tuple[Path, ...]
    unsaid: int

    @property
    def files(self) -> tuple[Path, ...]:
        """All images that are good or defective."""
        return (*self.alarms, *self.right, *self.defects)


def read_corrections(files: Iterable[Path]) -> Corrections:
    """What the ticks of one page or of several say; an image that is ticked equally in several counts once.

    Args:
        files: ``ticks.csv`` of pages.

    Raises:
        FileNotFoundError: If a file, or an image that is ticked in it, is not there.
        ValueError: If a file holds no ticks of a run, or an image is ticked as good and as defective.
    """
    alarms, right, defects = dict[Path, None](), dict[Path, None](), dict[Path, None]()
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
                f"The ticks of {file} are of an audit, whose images no model has judged, so none is a false alarm: "
                "they calibrate a miss rate. Teach with the ticks of a run."
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
            kind = defects if truth == "defective" else right if called == "good" else alarms
            kind[found(row, file)] = None
    both = [path for path in defects if path in alarms or path in right]
    if both:
        msg = f"{both[0]} is ticked as good and as defective. Correct one of the ticks, and download them anew."
        raise ValueError(msg)
    return Corrections(tuple(alarms), tuple(path for path in right if path not in alarms), tuple(defects), unsaid)
