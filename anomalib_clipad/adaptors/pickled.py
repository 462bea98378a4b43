"""Pickled modules, read as data: no class of theirs and no code of the file is used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor


class UnknownClassError(ValueError):
    """A pickled file names something that is no part of what it should hold."""


class _Module:
    """Holds what a pickled module held."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def read_plain(path: Path) -> Any:
    """What a file of torch holds, if that is tensors in plain containers."""
    return torch.load(path, map_location="cpu", weights_only=True)


def read_module(path: Path, classes: Sequence[str]) -> dict[str, Tensor]:
    """Parameters of a pickled ``nn.Module``, by their names in it.

    Args:
        path: The file.
        classes: Full names of the modules' classes that it may name.

    Raises:
        UnknownClassError: If it names anything else.
        ValueError: If it holds no module.
        UnpicklingError: If it is damaged.
    """
    stand_ins: list[Any] = [(_Module, name) for name in classes]
    with torch.serialization.safe_globals([*stand_ins, (set, "__builtin__.set"), (set, "builtins.set")]):
        try:
            module = read_plain(path)
        except UnpicklingError as error:
            other = re.search(r"GLOBAL ([\w.]+)", str(error))
            if other is None:
                raise
            msg = (
                f"{path} names {other[1]}, which is no part of these layers: it is not read, and no code of it was run."
            )
            raise UnknownClassError(msg) from error
    if not isinstance(module, _Module):
        msg = f"{path} holds a {type(module).__name__} in place of a module."
        raise ValueError(msg)
    return _parameters(module, "")


def _parameters(module: Any, prefix: str) -> dict[str, Tensor]:
    own = vars(module)
    found = {prefix + name: value.detach() for name, value in own.get("_parameters", {}).items() if value is not None}
    for name, part in own.get("_modules", {}).items():
        found |= _parameters(part, f"{prefix}{name}.")
    return found
