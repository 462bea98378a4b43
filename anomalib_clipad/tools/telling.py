"""What `anomalib-clipad inspect` says at the end of a run, and what it was called with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_clipad.verdicts.decision import P_VALUE, SCORE
from anomalib_clipad.verdicts.defect_scores import VERDICTS

from .cli import SWITCHES

if TYPE_CHECKING:
    from anomalib_clipad.inspection.tables import Summary

_AGAIN = ("--overwrite", "--resume")
"""What becomes of an earlier run."""


def called() -> str:
    """The command as it was called, for a new run."""
    given: list[str] = []
    earlier = ""
    for word in sys.argv[1:]:
        value = earlier in _AGAIN and word.lower() in SWITCHES
        if not value and word.partition("=")[0] not in _AGAIN:
            given.append(word)
        earlier = word
    return shlex.join(["anomalib-clipad", *given])


def tell(summary: Summary, about: Mapping[str, Any], where: Path) -> None:
    """How many, how many defective, the worst, what decides, and where the files are."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    decided = about["decided"]
    verdicts = f", {summary.defective} defective" if decided else ""
    if summary.verdicts:
        three = (summary.verdicts.get(verdict, 0) for verdict in VERDICTS[::-1])
        verdicts = ", {} defective, {} to look at, {} good".format(*three)
    table = Table(title=f"{summary.images} images{verdicts}, {summary.failed} not readable")
    table.add_column("image", overflow="fold")
    eyes = any(row.text_score is not None for row in summary.worst)
    columns = [
        "score",
        *(["text", "references"] if eyes else []),
        "p-value",
        ("verdict" if summary.verdicts else "label") if decided else "rank",
        "regions",
    ]
    for name in columns:
        table.add_column(name, justify="right")
    for rank, row in enumerate(summary.worst, 1):
        apart = [_number(row.text_score), _number(row.reference_score)] if eyes else []
        last = [_number(row.p_value), (row.verdict or row.label) if decided else str(rank), str(len(row.regions))]
        table.add_row(Text(row.path), _number(row.score), *apart, *last)
    console = Console()
    console.print(table)
    said = [SCORE, *([P_VALUE] if any(row.p_value is not None for row in summary.worst) else [])]
    for sentence in (about["decision"], *summary.parts, *about["notes"], " ".join(said), str(where)):
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
