"""Tables in a page of Markdown, and the comment above each that says where its numbers come from.

Three kinds of comment stand directly above a table, with at most an empty line between::

    <!-- figures: python -m anomalib_clipad.lab references | weights 1a2b3c4d5e6f | 0.3.0 | AMD EPYC, 2 cores -->
    <!-- recipe | weights 1a2b3c4d5e6f -->
    <!-- not measured: by arithmetic -->

The first is of a table that its command prints. ``weights none`` says that clipad-mini does not matter for it; where
nothing but the command is given, the table was never written. The second is the record of a training, which is not
repeated. The third is of numbers that nobody measured here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

NONE = "none"
"""In place of a digest, where clipad-mini does not matter."""
_FIGURES = re.compile(r"<!-- figures: (?P<command>[^|]+?)(?: \| weights (?P<weights>\w+))?(?: \| (?P<rest>.+))? -->")
_RECIPE = re.compile(r"<!-- recipe \| weights (?P<weights>\w+) -->")
_NOT_MEASURED = re.compile(r"<!-- not measured: .+ -->")
_NUMBER = r"[~+-]?\d[\d,]*(\.\d+)?(e-?\d+)?( ?(%|x|s|ms|MB|GB|TB|GMAC))?"
_NUMBERS = re.compile(rf"{_NUMBER}(( / |, ){_NUMBER})*")
_OPTIONS = ("<!-- options of ", "<!-- end of options -->")


class Origin(NamedTuple):
    """Where the numbers of a measured table come from.

    Attributes:
        command: Prints the table.
        weights: First digits of the digest of clipad-mini's tensors, or ``none``; empty if it was never written.
        rest: Version of this package and processor, as text.
    """

    command: str
    weights: str = ""
    rest: str = ""

    def comment(self) -> str:
        """The line above the table."""
        parts = [f"figures: {self.command}", *([f"weights {self.weights}"] if self.weights else []), self.rest]
        return f"<!-- {' | '.join(part for part in parts if part)} -->"


class Table(NamedTuple):
    """A table of a page.

    Attributes:
        start: Index of its first line.
        lines: Its lines.
        above: Index of the last line above that is not empty, or -1.
        comment: That line.
    """

    start: int
    lines: tuple[str, ...]
    above: int
    comment: str

    @property
    def origin(self) -> Origin | None:
        """Where it comes from, if a command prints it."""
        found = _FIGURES.fullmatch(self.comment)
        return Origin(found["command"], found["weights"] or "", found["rest"] or "") if found else None

    @property
    def head(self) -> tuple[str, ...]:
        """The titles of its columns, which tell the tables of a command apart."""
        return cells(self.lines[0])

    @property
    def numbers(self) -> bool:
        """Whether a column has numbers in all its cells below the title that are not empty."""
        columns = ([cell for cell in column if cell] for column in zip(*map(cells, self.lines[2:]), strict=False))
        return any(column and all(_NUMBERS.fullmatch(cell) for cell in column) for column in columns)

    def fault(self, weights: str) -> str | None:
        """What is wrong with it, where clipad-mini's weights have that digest.

        Args:
            weights: First digits of the digest.
        """
        if origin := self.origin:
            if origin.weights in {weights, NONE} and origin.rest:
                return None
            was = f"is of the weights {origin.weights}, not of {weights}" if origin.weights else "was never written"
            return f"the table of '{origin.command}' {was}; run `make figures`."
        if recipe := _RECIPE.fullmatch(self.comment):
            return None if recipe["weights"] == weights else f"the recipe is of the weights {recipe['weights']}."
        if self.numbers and not _NOT_MEASURED.fullmatch(self.comment):
            return (
                "a table of numbers without their origin; expected above it <!-- figures: COMMAND -->, "
                "<!-- recipe | weights DIGEST --> or <!-- not measured: WHY -->."
            )
        return None


def cells(line: str) -> tuple[str, ...]:
    """The cells of a line of a table."""
    return tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|")))


def tables(text: str) -> Iterator[Table]:
    """The tables of a page but for those of options and those in blocks of code."""
    lines, hidden, code, above, start = [*text.splitlines(), ""], False, False, -1, -1
    for number, line in enumerate(lines):
        if line.startswith("```"):
            code = not code
        hidden = (hidden or line.startswith(_OPTIONS[0])) and not line.startswith(_OPTIONS[1])
        is_row = line.startswith("|") and not code and not hidden
        if is_row and start < 0:
            start = number
        elif not is_row and start >= 0:
            yield Table(start, tuple(lines[start:number]), above, lines[above] if above >= 0 else "")
            start = -1
        if line.strip() and start < 0:
            above = number


def faults(text: str, weights: str) -> Iterator[str]:
    """What is wrong with the tables of a page, each with its line."""
    for table in tables(text):
        if found := table.fault(weights):
            yield f"{table.start + 1}: {found}"


def compact(table: Table) -> list[str]:
    """The lines of a table without spaces that only align it."""
    rule = (f"---{':' if cell.endswith(':') else ''}" for cell in cells(table.lines[1]))
    rows = [table.head, tuple(rule), *map(cells, table.lines[2:])]
    return [f"| {' | '.join(row)} |".replace("  ", " ") for row in rows]


def rewritten(text: str, origin: Origin, output: str) -> str:
    """A page whose tables of a command are those of its output.

    Args:
        text: The page.
        origin: What the comments say from now on; of tables with ``weights none`` these words stay.
        output: What the command printed.

    Raises:
        ValueError: If the command prints no table with the titles of one of the page's.
    """
    lines, printed = text.splitlines(), {table.head: table for table in tables(output)}
    for table in reversed(list(tables(text))):
        own = table.origin
        if own is None or own.command != origin.command:
            continue
        if table.head not in printed:
            found = "; ".join(" | ".join(head) for head in printed) or "none"
            msg = f"'{origin.command}' printed no table with the titles {' | '.join(table.head)}. Printed: {found}."
            raise ValueError(msg)
        lines[table.start : table.start + len(table.lines)] = compact(printed[table.head])
        lines[table.above] = origin._replace(weights=NONE if own.weights == NONE else origin.weights).comment()
    return "\n".join(lines) + "\n"
