"""Checks of values that users give, and the words in which that is said: what was given and what is expected."""

from __future__ import annotations

import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether it is an integer of at least that; true and false are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_number(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether it is a finite number in a range; true and false are none."""
    kind = isinstance(value, Real) and not isinstance(value, bool)
    return kind and bool(-math.inf < value < math.inf and least <= value <= most)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """A count as an ``int``.

    Raises:
        ValueError: If it is no integer, or below the least one.
    """
    if not is_whole(value, least):
        msg = f"{name} has to be an integer, {least} or more; got {value!r}."
        raise ValueError(msg)
    return int(value)


def check_counts(least: int = 1, **counts: Any) -> None:
    """Check counts; ``None`` leaves the choice to someone else.

    Raises:
        ValueError: If one is no integer, or below the least one.
    """
    for name, count in counts.items():
        if count is not None:
            check_count(name, count, least)


def check_share(name: str, value: Any) -> None:
    """Check a share in [0, 1].

    Raises:
        ValueError: If it is none.
    """
    if not is_number(value, 0, 1):
        msg = f"{name} has to be a share in [0, 1]; got {value!r}."
        raise ValueError(msg)


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Check one of several names.

    Raises:
        ValueError: If it is none of them; the message says which are, and which one is near.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        msg = f"Unknown {name} '{value}'; expected one of {', '.join(allowed)}{suggestion(value, allowed)}."
        raise ValueError(msg)


def nearest(name: Any, known: Iterable[str]) -> str | None:
    """The known name that someone has probably meant, if one is near; letters' case and ``_`` or ``-`` count little.

    >>> nearest("clipad_mini", ["clipad-mini", "ViT-B-16"])
    'clipad-mini'
    """
    plain = {one.lower().replace("_", "-"): one for one in known}
    found = get_close_matches(str(name).lower().replace("_", "-"), plain, 1)
    return plain[found[0]] if found else None


def suggestion(name: Any, known: Iterable[str]) -> str:
    """The near name as a part of a sentence; nothing where none is near."""
    near = nearest(name, known)
    return "" if near is None else f" (did you mean '{near}'?)"


def in_a_line(error: object) -> str:
    """What another library says of an error, as a part of a sentence: in one line, and no more than a line."""
    return " ".join(str(error).split())[:200]
