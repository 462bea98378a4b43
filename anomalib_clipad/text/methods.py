"""Methods of RVS by name, and the options that each takes; without torch, since a command line names them too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from anomalib_clipad.checks import check_choice, is_number, is_whole

Method = Literal["mean", "pca", "kde", "dbscan", "mean_shift"]
METHODS: tuple[str, ...] = get_args(Method)
_OPTIONS = {"kde": {"bandwidth"}, "dbscan": {"eps", "min_samples"}, "mean_shift": {"bandwidth"}}


def check_options(method: Any, options: Any) -> None:
    """Check a method's name and its options.

    Raises:
        ValueError: If the method or an option is unknown, or a value is not positive.
    """
    check_choice("RVS method", method, METHODS)
    if not isinstance(options, Mapping):
        msg = f"The RVS options have to be a mapping of names to numbers, such as {{'eps': 0.5}}; got {options!r}."
        raise ValueError(msg)
    known = _OPTIONS.get(method, set())
    for name, value in options.items():
        if name not in known:
            msg = f"Unknown option '{name}' of the RVS method '{method}'; it takes {sorted(known) or 'no options'}."
            raise ValueError(msg)
        whole = name == "min_samples"
        if not (is_whole(value) if whole else is_number(value) and value > 0):
            msg = f"The RVS option '{name}' has to be a positive {'integer' if whole else 'number'}; got {value!r}."
            raise ValueError(msg)
