"""Checks of the commands' arguments, before anything takes time."""

from __future__ import annotations


def check_counts(**counts: int | None) -> None:
    """Refuse a number below one; ``None`` leaves the choice to someone else.

    Raises:
        ValueError: If a number is below one.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            msg = f"{name} has to be at least 1; got {count}."
            raise ValueError(msg)
