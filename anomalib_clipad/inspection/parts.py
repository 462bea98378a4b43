"""Several pictures of one part: which part and view a picture is of, and the table of parts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import NamedTuple

from anomalib_clipad.storage import atomic_folder
from anomalib_clipad.verdicts.conformal import allowed
from anomalib_clipad.verdicts.normal_scores import NormalScores
from anomalib_clipad.verdicts.parts import NormalParts

from .lines import as_rows
from .records import read_results

PARTS = "parts.csv"
PART_COLUMNS = ("part", "verdict", "p_value", "view", "views", "remark")
_FIELDS = ("part", "view")
_NAMED = 3
"""How many parts a message names."""


class Part(NamedTuple):
    """A part that was inspected.

    Attributes:
        name: What its pictures have in common.
        verdict: ``good``, ``defective``, or ``look`` where it cannot be judged as a whole.
        p_value: How rare it is among normal parts; ``None`` where it cannot be said.
        view: The view in which it is rarest.
        views: How many views there are.
        remark: Why it cannot be judged.
    """

    name: str
    verdict: str
    p_value: float | None = None
    view: str | None = None
    views: int = 0
    remark: str | None = None

    def __str__(self) -> str:
        if self.remark:
            return f"{self.verdict}, {self.remark}"
        return f"{self.verdict} by {self.view}" if self.verdict == "defective" else self.verdict


class PartNames:
    """Tells part and view by the end of a path.

    Args:
        pattern: Such as ``{part}_{view}.png`` or ``{view}/{part}``; without a suffix it is of pictures of any kind.
            Where it can be read in several ways, what comes first is as long as it can be. Parts in other folders are
            others.

    Raises:
        ValueError: If it does not name both, each once.

    Example:
        >>> PartNames("{part}_{view}.png").of("day1/bolt_07_left.png")
        ('day1/bolt_07', 'left')
        >>> PartNames("{view}/{part}").of("day1/left/bolt_07.jpg")
        ('day1/bolt_07', 'left')
        >>> PartNames("{part}_{view}").of("bolt.png")
    """

    def __init__(self, pattern: str) -> None:
        fields = re.findall(r"\{(\w*)\}", pattern)
        if sorted(fields) != sorted(_FIELDS):
            msg = f"A pattern of parts has {{part}} and {{view}}, each once, as {{part}}_{{view}}.png; got {pattern}."
            raise ValueError(msg)
        self._whole = bool(PurePath(pattern.replace("{", "").replace("}", "")).suffix)
        written = "".join(
            f"(?P<{piece[1:-1]}>[^/]+)" if piece in {"{part}", "{view}"} else re.escape(piece)
            for piece in re.split(r"(\{\w+\})", pattern)
        )
        self._pattern = re.compile(rf"(?P<before>(?:.*/)?){written}")

    def of(self, path: str) -> tuple[str, str] | None:
        """Part and view of a picture, if it is one of a part."""
        name = PurePath(path)
        text = name.as_posix() if self._whole else name.with_suffix("").as_posix()
        found = self._pattern.fullmatch(text)
        return None if found is None else (found["before"] + found["part"], found["view"])


class PartRule:
    """Verdicts on parts, at the false-alarm rate of a calibration, which holds for parts here.

    Args:
        names: Tells part and view.
        normal: Normal parts.
        rate: False-alarm rate.

    Raises:
        ValueError: If there are too few parts for the rate.
    """

    def __init__(self, names: PartNames, normal: NormalParts, rate: float) -> None:
        normal.check(rate)
        self.names, self.normal, self.rate = names, normal, rate

    @classmethod
    def of(cls, pattern: str, normal: NormalScores | None) -> PartRule:
        """Of a calibration whose pictures are called as the others are.

        Raises:
            ValueError: If there is none with a rate, or its pictures are not those of parts in the same views.
        """
        names = PartNames(pattern)
        if normal is not None and normal.three:
            msg = "A part is judged at a false-alarm rate alone: leave out miss_rate and defects, or part."
            raise ValueError(msg)
        if normal is None or normal.rate is None or not normal.identities:
            msg = "Parts are judged at a false-alarm rate: pass it, and calibration with pictures called as these are."
            raise ValueError(msg)
        scores: dict[str, dict[str, float]] = {}
        for identity, score in zip(normal.identities, normal.image_scores, strict=True):
            part, view = names.of(str(identity["name"])) or ("", "")
            scores.setdefault(part, {})[view] = float(score)
        others = len(scores.pop("", {}))
        views = sorted({view for part in scores.values() for view in part})
        partial = [part for part, seen in scores.items() if len(seen) < len(views)]
        if others or partial:
            what = f"{', '.join(partial[:_NAMED])} lack a view" if partial else "there are others"
            msg = (
                f"Calibration pictures of parts are called {pattern}, and show each part in every view, here in "
                f"{', '.join(views) or 'none'}; but {what}. Remove them, or add what is missing."
            )
            raise ValueError(msg)
        return cls(names, NormalParts([[part[view] for view in views] for part in scores.values()], views), normal.rate)

    def judge(self, name: str, scores: Mapping[str, float]) -> Part:
        """The verdict on a part.

        Args:
            name: What it is called.
            scores: Its image scores by view.
        """
        views = self.normal.views
        strange = sorted(set(scores) - set(views))
        missing = [view for view in views if view not in scores]
        remarks = [f"no picture of {', '.join(missing)}"] if missing else []
        remarks += [f"not calibrated: {', '.join(strange)}"] if strange else []
        if remarks:
            return Part(name, "look", views=len(scores), remark="; ".join(remarks))
        p_value, view = self.normal.score([scores[view] for view in views])
        bad = round(p_value * (len(self.normal) + 1)) <= allowed(self.rate, len(self.normal))
        return Part(name, "defective" if bad else "good", p_value, view, len(scores))

    def parts(self, seen: Iterable[tuple[str, float]]) -> Iterator[Part]:
        """Judge parts, in the order in which the first of their pictures comes.

        Args:
            seen: Paths and image scores; of several pictures of a view the last counts.
        """
        scores: dict[str, dict[str, float]] = {}
        for path, score in seen:
            if (found := self.names.of(path)) is not None:
                part, view = found
                scores.setdefault(part, {})[view] = score
        for name, views in scores.items():
            yield self.judge(name, views)


def write_parts(folder: Path, rule: PartRule, failed: Iterable[str]) -> list[Part]:
    """Write ``parts.csv`` of the record of a run, whole or not at all.

    Args:
        folder: Of the run.
        rule: How parts are judged.
        failed: Pictures that could not be inspected; a part of which there is nothing else has a row too.

    Returns:
        The parts.
    """
    parts = list(rule.parts((result.path, result.score) for result in read_results(folder)))
    known = {part.name for part in parts}
    lost = {found[0]: None for path in failed if (found := rule.names.of(path)) is not None and found[0] not in known}
    parts += [rule.judge(name, {}) for name in lost]
    with atomic_folder(folder) as new:
        text = as_rows([PART_COLUMNS, *(list(part) for part in parts)])
        (new / PARTS).write_text(text, encoding="utf-8", newline="")
    return parts


def summary_of(parts: Iterable[Part], rate: float) -> list[str]:
    """What there is to say of parts, in sentences."""
    found = list(parts)
    counts = Counter(part.verdict for part in found)
    said = [
        f"{len(found)} parts: {counts['defective']} defective, {counts['look']} to look at, {counts['good']} good, at "
        f"{100 * rate:.4g} % false alarms of parts ({PARTS})."
    ]
    bad = [f"{part.name} ({part.view})" for part in found if part.verdict == "defective"]
    if bad:
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        said.append(f"Defective parts, and the view in which each stands out: {', '.join(bad[:10])}{more}.")
    return said
