"""Packages of the extras, which not everybody has."""

from __future__ import annotations

from importlib.util import find_spec


def require(what: str, extra: str, *packages: str) -> None:
    """Check that packages are installed.

    Args:
        what: What needs them, as the beginning of a sentence.
        extra: The extra of this package that brings them.
        packages: The names they are imported by.

    Raises:
        ModuleNotFoundError: If one is not; the message names the extra.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        msg = f"{what} needs {', '.join(missing).replace('_', '-')}: pip install 'anomalib-clipad[{extra}]'"
        raise ModuleNotFoundError(msg, name=missing[0])
