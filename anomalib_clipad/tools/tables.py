"""The one writer of Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan

Row = Sequence[str | float]
"""The cells of one line: numbers and text."""


def markdown_table(columns: Sequence[tuple[str, str]], rows: Iterable[Row]) -> str:
    """A Markdown table that is also aligned as plain text.

    Args:
        columns: Title of each column and format of its numbers, such as ``".3f"``; without one it is text. Numbers
            are aligned to the right.
        rows: One cell per column. Text is written as it is, NaN as a dash.

    Raises:
        ValueError: If a row has more or fewer cells than there are columns.

    >>> print(markdown_table([("category", ""), ("AUROC", ".3f")], [("gear", 0.8292), ("wood", float("nan"))]))
    | category | AUROC |
    | -------- | ----: |
    | gear     | 0.829 |
    | wood     |     - |
    """
    formats = [number_format for _, number_format in columns]
    lines = [[title for title, _ in columns]]
    lines += [[_cell(value, form) for value, form in zip(row, formats, strict=True)] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (width - 1) + (":" if form else "-") for width, form in zip(widths, formats, strict=True)]
    return "\n".join(
        "| "
        + " | ".join(
            f"{cell:{'>' if form else '<'}{width}}" for cell, width, form in zip(line, widths, formats, strict=True)
        )
        + " |"
        for line in (lines[0], rule, *lines[1:])
    )


def _cell(value: str | float, number_format: str) -> str:
    if isinstance(value, str):
        return value.replace("|", r"\|")
    return "-" if isnan(value) else format(value, number_format)
