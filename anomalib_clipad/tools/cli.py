"""`anomalib-clipad`: the commands that anomalib does not have."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

_COMMANDS = {
    "demo": ("demo", "find defects in generated parts, offline"),
    "bench": ("bench.bench", "measure speed and memory against peers"),
    "report": ("report", "turn benchmark results into one table and picture"),
    "deployment": ("bench.deployment", "compare export formats: size, speed, metrics"),
    "inspect": ("inspect", "look at images and decide which are defective"),
    "large-images": ("bench.large_images", "compare ways to find small defects in large pictures"),
    "page": ("page", "write one HTML file that looks at images by itself"),
    "playground": ("playground", "serve a page to try wordings, normal images and thresholds on"),
    "product": ("product", "write text vectors and normal images of a product for an exported model"),
    "text-features": ("text_features", "write the text vectors of classes for an exported model"),
    "thresholds": ("bench.thresholds", "measure false alarms in every format, and drift"),
    "verify": ("verify", "check that an exported file does here what it did where it was written"),
}
"""Module in this package and purpose of each command."""

_ARGUMENTS: dict[str, dict[str, tuple[list[str], dict[str, Any]]]] = {
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
    warnings.filterwarnings("ignore", category=FutureWarning)  # what other packages tell each other
    parser = ArgumentParser(prog="anomalib-clipad", description=main.__doc__)
    commands = parser.add_subcommands()
    wanted = next((argument for argument in sys.argv[1:] if argument in _COMMANDS), "")
    for name, (module, purpose) in _COMMANDS.items():
        command = ArgumentParser(description=purpose)
        if name == wanted:  # the others would take seconds to import
            function = getattr(import_module(f"anomalib_clipad.tools.{module}"), name.replace("-", "_"))
            given = _ARGUMENTS.get(name, {})
            for flags, options in given.values():
                command.add_argument(*flags, **options)
            command.add_function_arguments(function, as_group=False, skip=set(given))
        commands.add_subcommand(name, command, help=purpose)
    kept = {flag for flags, _ in _ARGUMENTS.get(wanted, {}).values() for flag in flags}
    chosen = parser.parse_args([_spelled(argument, kept) for argument in sys.argv[1:]])
    arguments = chosen[wanted].as_dict()
    try:
        function(**arguments)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        if arguments.get("debug"):
            raise
        sys.exit(_one_line(wanted, error))
    except RuntimeError as error:
        from anomalib_clipad.backbones.backbone import WeightsUnavailableError

        if not isinstance(error, WeightsUnavailableError):
            raise
        sys.exit(_one_line(wanted, error))


def _spelled(argument: str, kept: set[str]) -> str:
    """An option with underscores, which may be written with hyphens too."""
    name, equals, value = argument.partition("=")
    return argument if not name.startswith("--") or name in kept else f"--{name[2:].replace('-', '_')}{equals}{value}"


def _one_line(command: str, error: Exception) -> str:
    """What to print of an error that the user can mend."""
    return f"anomalib-clipad {command}: {' '.join(str(error).split())}"
