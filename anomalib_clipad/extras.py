"""Packages of the extras, which not everybody has."""

from __future__ import annotations

import shlex
from importlib.metadata import requires
from importlib.util import find_spec


def require(what: str, extra: str, *packages: str) -> None:
    """Check that packages are installed.

    Args:
        what: What needs them, as the beginning of a sentence.
        extra: The extra of this package that brings them.
        packages: The names they are imported by.

    Raises:
        ModuleNotFoundError: If one is not; the message has the command that installs all of the extra.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        command = shlex.join(["pip", "install", *brought_by(extra)])
        msg = f"{what} needs {', '.join(missing).replace('_', '-')}: {command}"
        raise ModuleNotFoundError(msg, name=missing[0])


def brought_by(extra: str) -> list[str]:
    """The requirements of an extra, as pip takes them: they work wherever this package itself came from."""
    declared = [line.replace('"', "'") for line in requires("anomalib-clipad") or []]
    return [line.partition(";")[0] for line in declared if line.endswith(f"extra == '{extra}'")]
