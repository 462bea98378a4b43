"""The ticks of an audit: where they come from, and what they say (docs/thresholds.md, The audit).

Defects that were ticked from the top of a list sorted by score are those that the model finds anyway, and promise
nothing about the others. Those of an audit are drawn from all images. So the ticks of an audit say where they come
from, and others do not calibrate.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from anomalib_clipad.images.content import digest_of, digest_of_all
from anomalib_clipad.verdicts.conformal import images_needed
from anomalib_clipad.verdicts.defect_scores import check_defects
from anomalib_clipad.verdicts.proportion import in_words, interval

_SAID = re.compile(r"seed (\d+), (\d+) of (\d+) images, list ([0-9a-f]+), drawn ([0-9a-f]+)")
_GUARDED = re.compile(r"\A'(?=[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")
"""An apostrophe that the page has put before what a spreadsheet would compute."""
_TRUTHS = {"good", "defective"}
_SORTED = (
    "Only the ticks of an audit, or of a complete inspection, calibrate a miss rate: defects that were ticked from the "
    "top of a sorted list void it (of defects up to 43 % were called good for a promised 10 %). Draw images with "
    "`anomalib-clipad inspect IMAGES --audit 200` and tick all of them, or pass a folder of all defects of an "
    "inspection that looked at everything."
)


class Audit(NamedTuple):
    """Where ticks come from.

    Attributes:
        seed: Of the draw.
        drawn: How many images were.
        of: How many there are in the list.
        listed: Digest of the names in the list.
        images: Digest of what was drawn.
    """

    seed: int
    drawn: int
    of: int
    listed: str
    images: str

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.drawn} of {self.of} images, list {self.listed}, drawn {self.images}"

    @classmethod
    def of_text(cls, text: str) -> Audit | None:
        """What ``str`` gave; ``None`` for any other text."""
        found = _SAID.fullmatch(text)
        if found is None:
            return None
        seed, drawn, of, listed, images = found.groups()
        return cls(int(seed), int(drawn), int(of), listed, images)


class Ticks(NamedTuple):
    """What a person said of the images of an audit.

    Attributes:
        audit: Where they come from.
        defects: Files of those that are defective.
    """

    audit: Audit
    defects: tuple[Path, ...]

    def check(self, rate: float) -> None:
        """Check that there are enough defects for a miss rate.

        Raises:
            ValueError: If there are not; the message says how many images it would take.
        """
        try:
            check_defects(rate, len(self.defects))
        except ValueError as error:
            if not self.defects:
                raise
            needed = -(-images_needed(rate) * self.audit.drawn // len(self.defects))
            msg = f"{error} At the share of defects in this audit it takes about {needed} images."
            raise ValueError(msg) from error

    def said(self) -> str:
        """How many defects there are, in words."""
        audit, count = self.audit, len(self.defects)
        low, high = (round(edge * audit.of) for edge in interval(count, audit.drawn))
        found = f"In the audit (seed {audit.seed}) {count} of {audit.drawn} images are defective"
        if audit.drawn == audit.of:
            return f"{found}, and these are all images there were."
        return f"{found}: {in_words(count, audit.drawn)}, that is {low} to {high} of {audit.of}."


def missed_in_words(missed: int, of: int) -> str:
    """How many of an audit's defects are missed, in words."""
    return f"Of {of} known defects {missed} are not called defective now: {in_words(missed, of)}."


def read_ticks(file: Path) -> Ticks:
    """The ticks of an audit, checked.

    Args:
        file: ``ticks.csv`` of its page.

    Raises:
        FileNotFoundError: If it, or a defective image, is not there.
        ValueError: If they are of no audit, not of all of its images, or of images that have changed.
    """
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = list(csv.DictReader(opened))
    said = {row.get("audit") or "" for row in rows}
    audit = Audit.of_text(said.pop()) if len(said) == 1 else None
    if audit is None:
        msg = f"The ticks of {file} are not, or not all, of one audit. {_SORTED}"
        raise ValueError(msg)
    if len(rows) != audit.drawn or digest_of_drawn(row.get("digest") or "" for row in rows) != audit.images:
        msg = f"The images of {file} are not the {audit.drawn} that were drawn: some were added or left out. {_SORTED}"
        raise ValueError(msg)
    unsaid = sum(row.get("truth") not in _TRUTHS for row in rows)
    if unsaid:
        msg = (
            f"{unsaid} of the {audit.drawn} images of {file} are not ticked as good or defective. Tick all of them: "
            "those that are hard to tell are the ones a model misses."
        )
        raise ValueError(msg)
    return Ticks(audit, tuple(found(row, file) for row in rows if row["truth"] == "defective"))


def found(row: dict[str, str], file: Path) -> Path:
    """The file of an image that was ticked, as it was in the audit, if it was one.

    Args:
        row: Of the ticks.
        file: The ticks.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it has changed since.
    """
    given = row["path"]
    path = next((one for one in (Path(given), Path(_GUARDED.sub("", given))) if one.is_file()), None)
    if path is None:
        msg = (
            f"{given}, ticked in {file}, is not there. Call this from the folder in which the run or audit was started."
        )
        raise FileNotFoundError(msg)
    if "digest" in row and digest_of(path) != row["digest"]:  # only an audit has one
        msg = f"{given}, ticked in {file}, is no longer the image that was drawn. Audit the images anew."
        raise ValueError(msg)
    return path


def digest_of_drawn(digests: Iterable[str]) -> str:
    """Digest of the images that were drawn, in any order, of those of their files."""
    return digest_of_all(sorted(digests))[:16]
