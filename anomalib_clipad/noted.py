"""Warnings as notes: what is warned of while something is made can also be shown beside it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def noted() -> Iterator[list[str]]:
    """Collect what users are warned of; at the end they are warned all the same.

    Example:
        >>> with warnings.catch_warnings(record=True), noted() as notes:
        ...     warnings.warn("There are few images.", stacklevel=1)
        >>> notes
        ['There are few images.']
    """
    notes: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            yield notes
    finally:
        notes += [str(one.message) for one in said if one.category is UserWarning]
        for one in said:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
