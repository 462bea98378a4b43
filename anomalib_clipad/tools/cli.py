"""`anomalib-clipad`: the commands that anomalib does not have."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from jsonargparse import ArgumentParser

_COMMANDS = {
    "demo": ("demo:demo", "find defects in generated parts, offline"),
    "report": ("report:report", "turn benchmark results into one table and picture"),
    "inspect": ("inspect:inspect", "look at images and decide which are defective"),
    "page": ("page:page", "write one HTML file that looks at images by itself"),
    "playground": ("playground:playground", "serve a page to try wordings, normal images and thresholds on"),
    "product": ("product:product", "write text vectors and normal images of a product for an exported model"),
    "text-features": ("text_features:text_features", "write the text vectors of classes for an exported model"),
    "verify": ("verify:verify", "check that an exported file does here what it did where it was written"),
}
"""Function in this package and purpose of each command."""

_MOVED = ("bench", "deployment", "large-images", "thresholds")
"""Commands of 0.2 that are now in the laboratory, which is not installed."""

Written = dict[str, dict[str, tuple[list[str], dict[str, Any]]]]
"""Of a command, of an argument: its flags, and what ``add_argument`` is told of it."""

_ARGUMENTS: Written = {
    "inspect": {
        "images": (
            ["images"],
            {
                "nargs": "*",
                "type": str,
                "help": "files, folders, patterns, lists (.txt, .parquet), videos, or - for a list on stdin",
            },
        ),
    },
    "page": {
        "class_name": (["--class-name"], {"nargs": "+", "help": "what images may show"}),
        "output": (["-o", "--output"], {"type": Path, "default": "inspector.html", "help": "file to write"}),
    },
    "report": {"results": (["results"], {"nargs": "+", "type": Path, "help": "results.csv of `anomalib benchmark`"})},
    "product": {
        "class_name": (["--class-name"], {"help": "what the images show"}),
        "normal": (["--normal"], {"required": True, "type": Path, "help": "folder of normal images"}),
        "output": (
            ["-o", "--output"],
            {"type": Path, "default": "product.safetensors", "help": "file of memory, scale and text features"},
        ),
    },
    "verify": {"file": (["file"], {"type": Path, "help": "exported model: .onnx, .xml or .pt"})},
    "text-features": {
        "class_name": (["--class-name"], {"nargs": "+", "required": True, "help": "names of the classes"}),
        "output": (
            ["-o", "--output"],
            {"type": Path, "default": "features.safetensors", "help": "file of a tensor (D, 2) per class"},
        ),
    },
}
"""Arguments that are written otherwise than jsonargparse would have them."""


def main() -> None:
    """Run the command named on the command line."""
    first = next(iter(sys.argv[1:]), "")
    if first in _MOVED:
        sys.exit(
            f"anomalib-clipad {first} has moved: run `python -m anomalib_clipad.lab {first}` in a clone of the "
            "repository; it is no longer part of the installed package."
        )
    run("anomalib-clipad", "anomalib_clipad.tools", _COMMANDS, main.__doc__, _ARGUMENTS)


def run(
    program: str, package: str, commands: dict[str, tuple[str, str]], description: str | None, written: Written
) -> None:
    """Run one of a program's commands, as the command line says; what the user can mend is printed in one line.

    Args:
        program: How the program is started.
        package: Package of the commands' modules.
        commands: Function (``module:name``) and purpose of each command.
        description: What the program does.
        written: Arguments of a command that are written otherwise than jsonargparse would have them.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)  # what other packages tell each other
    parser = ArgumentParser(prog=program, description=description)
    subcommands = parser.add_subcommands()
    wanted = next((argument for argument in sys.argv[1:] if argument in commands), "")
    given = written.get(wanted, {})
    for name, (place, purpose) in commands.items():
        command = ArgumentParser(description=purpose)
        if name == wanted:  # the others would take seconds to import
            function = resolve_name(f"{package}.{place}")
            for flags, options in given.values():
                command.add_argument(*flags, **options)
            command.add_function_arguments(function, as_group=False, as_positional=True, skip=set(given))
        subcommands.add_subcommand(name, command, help=purpose)
    kept = {flag for flags, _ in given.values() for flag in flags}
    chosen = parser.parse_args([_spelled(argument, kept) for argument in sys.argv[1:]])
    arguments = chosen[wanted].as_dict()
    try:
        function(**arguments)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        if arguments.get("debug"):
            raise
        sys.exit(_one_line(f"{program} {wanted}", error))
    except RuntimeError as error:
        from anomalib_clipad.backbones.backbone import WeightsUnavailableError

        if not isinstance(error, WeightsUnavailableError):
            raise
        sys.exit(_one_line(f"{program} {wanted}", error))


def _spelled(argument: str, kept: set[str]) -> str:
    """An option with underscores, which may be written with hyphens too."""
    name, equals, value = argument.partition("=")
    return argument if not name.startswith("--") or name in kept else f"--{name[2:].replace('-', '_')}{equals}{value}"


def _one_line(command: str, error: Exception) -> str:
    """What to print of an error that the user can mend."""
    return f"{command}: {' '.join(str(error).split())}"
