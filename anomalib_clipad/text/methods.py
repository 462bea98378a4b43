"""Methods of RVS by name, and the options that each takes; without torch, since a command line names them too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Method = Literal["mean", "pca", "kde", "dbscan", "mean_shift"]
METHODS: tuple[str, ...] = get_args(Method)
_OPTIONS = {"kde": {"bandwidth"}, "dbscan": {"eps", "min_samples"}, "mean_shift": {"bandwidth"}}


def check_options(method: str, options: Mapping[str, float]) -> None:
    """Check a method's name and its options.

    Raises:
        ValueError: If the method or an option is unknown, or a value is not positive.
    """
    if method not in METHODS:
        msg = f"Unknown RVS method '{method}'; expected one of {', '.join(METHODS)}."
        raise ValueError(msg)
    known = _OPTIONS.get(method, set())
    for name, value in options.items():
        if name not in known:
            msg = f"Unknown option '{name}' of the RVS method '{method}'; it takes {sorted(known) or 'no options'}."
            raise ValueError(msg)
        whole = name == "min_samples"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not value > 0:
            msg = f"The RVS option '{name}' has to be a positive {'integer' if whole else 'number'}; got {value!r}."
            raise ValueError(msg)
