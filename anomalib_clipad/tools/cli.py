"""`anomalib-clipad`: the commands that anomalib does not have."""

from __future__ import annotations

from importlib import import_module

from jsonargparse import auto_cli

_COMMANDS = {"demo": "demo", "bench": "bench"}


def main() -> None:
    """Run the command named on the command line."""
    functions = {
        command: getattr(import_module(f"anomalib_clipad.tools.{module}"), module)
        for command, module in _COMMANDS.items()
    }
    auto_cli(functions, as_positional=False)
