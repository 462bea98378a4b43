"""`anomalib-clipad`: the commands that anomalib does not have."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from jsonargparse import ArgumentParser

_COMMANDS = {
    "demo": "find defects in generated parts, offline",
    "bench": "measure speed and memory against peers",
    "report": "turn benchmark results into one table and picture",
}


def main() -> None:
    """Run the command named on the command line."""
    parser = ArgumentParser(prog="anomalib-clipad", description=main.__doc__)
    commands = parser.add_subcommands()
    wanted = next((argument for argument in sys.argv[1:] if argument in _COMMANDS), "")
    for name, purpose in _COMMANDS.items():
        command = ArgumentParser(description=purpose)
        if name == wanted:  # the others would take seconds to import
            function = getattr(import_module(f"anomalib_clipad.tools.{name}"), name)
            if name == "report":
                command.add_argument("results", nargs="+", type=Path, help="results.csv of `anomalib benchmark`")
            command.add_function_arguments(function, as_group=False, skip={"results"})
        commands.add_subcommand(name, command, help=purpose)
    chosen = parser.parse_args()
    function(**chosen[wanted].as_dict())
