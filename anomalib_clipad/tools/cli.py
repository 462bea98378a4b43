"""`anomalib-clipad`: the commands that anomalib does not have."""

from __future__ import annotations

import sys
import warnings
from argparse import SUPPRESS
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

if TYPE_CHECKING:
    from anomalib_clipad.settings import Option

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
    "page": {"class_name": (["--class_name"], {"nargs": "+", "help": "What images may show; the page lets choose."})},
    "report": {"results": (["results"], {"nargs": "+", "type": Path, "help": "results.csv of `anomalib benchmark`"})},
    "verify": {"file": (["file"], {"type": Path, "help": "exported model: .onnx, .xml or .pt"})},
    "text-features": {
        "class_name": (["--class_name"], {"nargs": "+", "required": True, "help": "Names of the classes."}),
    },
}
"""Arguments that are written otherwise than jsonargparse would have them."""

_TITLES = {"settings": "the model", "decision": "what images are compared with, and what is called defective"}
"""Of the options that commands share."""


def main() -> None:
    """Run the command named on the command line."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # what other packages tell each other
    warnings.filterwarnings("default", category=DeprecationWarning, module="anomalib_clipad")
    warnings.formatwarning = lambda message, *_: f"anomalib-clipad: {message}\n"
    parser = ArgumentParser(prog="anomalib-clipad", description=main.__doc__)
    commands = parser.add_subcommands()
    wanted = next((argument for argument in sys.argv[1:] if argument in _COMMANDS), "")
    chosen = Command(wanted) if wanted else None  # the others would take seconds to import
    for name, (_, purpose) in _COMMANDS.items():
        own = chosen.parser if chosen is not None and name == wanted else ArgumentParser(description=purpose)
        commands.add_subcommand(name, own, help=purpose)
    if chosen is None:
        parser.parse_args()  # which says what commands there are, and ends
        return
    arguments = parser.parse_args(chosen.spelled(sys.argv[1:]))[wanted].as_dict()
    try:
        chosen.run(arguments)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        if arguments.get("debug"):
            raise
        sys.exit(_one_line(wanted, error))
    except RuntimeError as error:
        from anomalib_clipad.backbones.backbone import WeightsUnavailableError

        if not isinstance(error, WeightsUnavailableError):
            raise
        sys.exit(_one_line(wanted, error))


class Command:
    """A command: its parser, made of its function and of the options that it shares with others.

    A function takes what users gave of these, and nothing else, in its parameters ``settings`` and ``decision``.

    Args:
        name: Of ``_COMMANDS``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        module, purpose = _COMMANDS[name]
        self._function = getattr(import_module(f"anomalib_clipad.tools.{module}"), name.replace("-", "_"))
        groups = {"settings", "decision"} & signature(self._function).parameters.keys()
        self.shared = {group: _shared(name, group) for group in sorted(groups, reverse=True)}
        self.parser = ArgumentParser(description=purpose)
        given = _ARGUMENTS.get(name, {})
        for flags, how in given.values():
            self.parser.add_argument(*flags, **how)
        self.parser.add_function_arguments(self._function, as_group=False, skip={*given, *self.shared})
        for group, options in self.shared.items():
            place = self.parser.add_argument_group(_TITLES[group])
            for option in options:
                place.add_argument(f"--{option.name}", type=option.type, default=SUPPRESS, help=_described(option))
        self._options = self.parser._option_string_actions  # as argparse has always called them
        if "--output" in self._options:
            self._options["-o"] = self._options["--output"]
            self._options["-o"].option_strings.insert(0, "-o")  # type: ignore[attr-defined]  # a list

    def spelled(self, arguments: Sequence[str]) -> list[str]:
        """Arguments as the parser knows them: names with underscores, and of today.

        A name that is unknown and near a known one ends the program.
        """
        return [self._spelled(argument) if argument.startswith("--") else argument for argument in arguments]

    def _spelled(self, argument: str) -> str:
        flag, equals, value = argument.partition("=")
        flag = f"--{flag[2:].replace('-', '_')}"
        if flag == "--normal" and "--references" in self._options:
            msg = "--normal is called --references now; the old name ends with the next release."
            warnings.warn(msg, DeprecationWarning, stacklevel=1)
            flag = "--references"
        name = flag.partition(".")[0]  # --rvs_options.eps
        near = [] if name in self._options else get_close_matches(name, self._options, 1)
        if near:
            print(f"anomalib-clipad {self.name}: There is no option {name}; did you mean {near[0]}?", file=sys.stderr)
            sys.exit(2)
        return flag + equals + value

    def run(self, arguments: dict[str, Any]) -> None:
        """Call the function with parsed arguments."""
        groups = {
            group: {option.name: arguments[option.name] for option in options if option.name in arguments}
            for group, options in self.shared.items()
        }
        shared = {name for group in groups.values() for name in group}
        own = {name: value for name, value in arguments.items() if name not in shared}
        self._function(**own, **groups)


def _described(option: Option) -> str:
    """The text of an option with its default, which jsonargparse does not know: it parses what is given only."""
    return f"{option.text} (default: {'none' if option.default in (None, {}) else option.default})"


def _shared(command: str, group: str) -> tuple[Option, ...]:
    from .arguments import MODEL, decision

    return MODEL if group == "settings" else decision(command)


def _one_line(command: str, error: Exception) -> str:
    """What to print of an error that the user can mend."""
    return f"anomalib-clipad {command}: {' '.join(str(error).split())}"
