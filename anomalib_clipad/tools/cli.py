"""`anomalib-clipad`: the commands that anomalib does not have."""

from __future__ import annotations

import re
import sys
import warnings
from argparse import SUPPRESS, Action
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin

from jsonargparse import ArgumentParser

from anomalib_clipad.checks import nearest

from .terminal import steady_output

if TYPE_CHECKING:
    from anomalib_clipad.settings import Option

_COMMANDS = {
    "cache": ("cache:cache", "show or clear what is kept between runs to save time"),
    "demo": ("demo:demo", "find defects in generated parts, offline"),
    "report": ("report:report", "turn benchmark results into one table and picture"),
    "inspect": ("inspect:inspect", "look at images and decide which are defective"),
    "page": ("page:page", "write one HTML file that looks at images by itself"),
    "playground": ("playground:playground", "serve a page to try wordings, normal images and thresholds on"),
    "product": ("product:product", "write text vectors and normal images of a product for an exported model"),
    "teach": ("teach:teach", "let images ticked as good join the references, and report what that changes"),
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
    "page": {"class_name": (["--class_name"], {"nargs": "+", "help": "What images may show; the page lets choose."})},
    "report": {"results": (["results"], {"nargs": "+", "type": Path, "help": "results.csv of `anomalib benchmark`"})},
    "teach": {
        "ticks": (["ticks"], {"nargs": "+", "type": Path, "help": "ticks.csv of pages of `anomalib-clipad inspect`"}),
        "unticked": (
            ["--unticked"],
            {
                "nargs": "+",
                "help": "The other images of the list that was ticked: files, folders, patterns, lists. The report "
                "tells of them, and none of them may calibrate the taught model.",
            },
        ),
    },
    "verify": {"file": (["file"], {"type": Path, "help": "exported model: .onnx, .xml or .pt"})},
    "text-features": {
        "class_name": (["--class_name"], {"nargs": "+", "required": True, "help": "Names of the classes."}),
    },
}
"""Arguments that are written otherwise than jsonargparse would have them."""

_TITLES = {
    "settings": "the model",
    "decision": "what images are compared with, and what is called defective",
    "written": "what is written beside the tables",
    "cluster": "where Ray works",
}
"""Of the options that commands share."""

SWITCHES = {"true", "false", "yes", "no", "null"}
"""What may follow an option that is on or off."""
_REPHRASED = {
    r'Parser key "([^"]+)":': r"--\1:",
    r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors: .* Given value: ": (
        r"Expected one of \1. Got value: "
    ),
    r"(?:a )?<class '(?:[\w.]+\.)?(\w+)'>": r"\1",
    r"(?:a )?typing\.Literal\[(.*?)\]": r"one of \1",
    "Expected one of NoneType, one of": "Expected one of",
    "Expected one of NoneType,": "Expected",
}
"""What jsonargparse says, as users understand it."""


def main() -> None:
    """Run the command named on the command line."""
    first = next(iter(sys.argv[1:]), "")
    if first in _MOVED:
        sys.exit(
            f"anomalib-clipad {first} has moved: run `python -m anomalib_clipad.lab {first}` in a clone of the "
            "repository; it is no longer part of the installed package."
        )
    _program().run(main.__doc__)


def _program() -> Program:
    return Program("anomalib-clipad", "anomalib_clipad.tools", _COMMANDS, _ARGUMENTS)


def command_of(name: str) -> Command:
    """A command by its name."""
    return Command(name, _program())


def end(program: str, message: str) -> NoReturn:
    """End the program with status 2, as for any argument that it does not understand."""
    print(f"{program}: {message}", file=sys.stderr)
    sys.exit(2)


class _Parser(ArgumentParser):
    """A parser that says in one line what is wrong, without a page of options before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002  # of jsonargparse
        """End the program with what is wrong."""
        program, text = self.prog.replace("[options] ", ""), " ".join(message.split())
        for pattern, words in _REPHRASED.items():
            text = re.sub(pattern, words, text)
        end(program, f"{text.rstrip('.')}. `{program} --help` lists what there is.")


class Program(NamedTuple):
    """Commands under one name.

    Attributes:
        name: How it is started.
        package: Package of the commands' modules.
        commands: Function (``module:name``) and purpose of each command.
        written: Arguments of a command that are written otherwise than jsonargparse would have them.
    """

    name: str
    package: str
    commands: dict[str, tuple[str, str]]
    written: Written

    def run(self, description: str | None) -> None:
        """Run one of the commands, as the command line says; what the user can mend is printed in one line."""
        steady_output()
        warnings.filterwarnings("ignore", category=FutureWarning)  # what other packages tell each other
        warnings.filterwarnings("default", category=DeprecationWarning, module="anomalib_clipad")
        warnings.formatwarning = lambda message, *_: f"{self.name}: {message}\n"
        parser = _Parser(prog=self.name, description=description)
        subcommands = parser.add_subcommands()
        wanted = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
        near = None if wanted in self.commands else nearest(wanted, self.commands)
        if near:
            end(self.name, f"There is no command {wanted}; did you mean {near}?")
        chosen = None  # the others would take seconds to import
        for name, (_, purpose) in self.commands.items():
            if name == wanted:
                chosen = Command(name, self)
            own = chosen.parser if chosen is not None and name == wanted else _Parser(description=purpose)
            subcommands.add_subcommand(name, own, help=purpose)
        if chosen is None and {"-h", "--help"} & {*sys.argv}:
            parser.parse_args()  # which says what commands there are, and ends
        if chosen is None:
            said = f"There is no command {wanted}." if wanted else "Name a command."
            end(self.name, f"{said} Commands are {', '.join(self.commands)}; `{self.name} --help` says what they do.")
        arguments = parser.parse_args(chosen.spelled(sys.argv[1:]))[wanted].as_dict()
        try:
            chosen.run(arguments)
        except (OSError, ValueError, ModuleNotFoundError, RuntimeError) as error:
            from anomalib_clipad.backbones.backbone import WeightsUnavailableError

            unknown = isinstance(error, RuntimeError) and not isinstance(error, WeightsUnavailableError)
            if unknown or arguments.get("debug"):
                raise
            sys.exit(f"{self.name} {wanted}: {' '.join(str(error).split())}")


class Command:
    """A command: its parser, made of its function and of the options that it shares with others.

    A function takes what users gave of these, and nothing else, in parameters by the names of the groups.

    Args:
        name: Its name.
        program: Whose it is.
    """

    def __init__(self, name: str, program: Program) -> None:
        place, purpose = program.commands[name]
        written = program.written.get(name, {})
        self.name, self._program = name, program.name
        self._function: Callable[..., None] = resolve_name(f"{program.package}.{place}")
        taken = signature(self._function).parameters
        self.shared = {group: options for group, options in _shared(name).items() if group in taken}
        self.parser = _Parser(description=purpose)
        for flags, how in written.values():
            self.parser.add_argument(*flags, **how)
        skipped: set[str | int] = {*written, *self.shared}
        self.parser.add_function_arguments(self._function, as_group=False, as_positional=True, skip=skipped)
        for group, options in self.shared.items():
            titled = self.parser.add_argument_group(_TITLES[group])
            for option in options:
                titled.add_argument(f"--{option.name}", type=option.type, default=SUPPRESS, help=_described(option))
        self._options = self.parser._option_string_actions  # as argparse has always called them
        if "--output" in self._options:
            self._options["-o"] = self._options["--output"]
            self._options["-o"].option_strings.insert(0, "-o")  # type: ignore[attr-defined]  # a list

    def spelled(self, arguments: Sequence[str]) -> list[str]:
        """Arguments as the parser knows them: names with underscores, and of today; a bare flag as one that is true.

        A name or a choice that is unknown and near a known one ends the program.
        """
        own, dashes, verbatim = list(arguments), [], []
        if "--" in own:
            place = own.index("--")
            own, dashes, verbatim = own[:place], ["--"], own[place + 1 :]
        spelled = [self._spelled(argument) if argument.startswith("--") else argument for argument in own]
        for place, argument in enumerate(spelled):
            name, equals, value = argument.partition("=")
            types = _parts(self._options[name]) if name in self._options else []
            value = value if equals else next(iter(spelled[place + 1 :]), "")
            if bool in types and not equals and value.lower() not in SWITCHES:
                spelled[place] = f"{name}=true"
            choices = [one for one in types if isinstance(one, str)]
            near = None if value in choices else nearest(value, choices)
            if near is not None:
                said = f"{name}: Expected one of {', '.join(choices)}. Got value: {value}; did you mean {near}?"
                end(f"{self._program} {self.name}", said)
        return spelled + dashes + verbatim

    def _spelled(self, argument: str) -> str:
        flag, equals, value = argument.partition("=")
        flag = f"--{flag[2:].replace('-', '_')}"
        if flag == "--normal" and "--references" in self._options:
            msg = "--normal is called --references now; the old name ends with the next release."
            warnings.warn(msg, DeprecationWarning, stacklevel=1)
            flag = "--references"
        name = flag.partition(".")[0]  # --rvs_options.eps
        nested = any(option.startswith(f"{name}.") for option in self._options)
        known = flag in self._options or (name in self._options and not nested)
        near = None if known else nearest(flag, self._options)
        if near is not None:
            end(f"{self._program} {self.name}", f"There is no option {flag}; did you mean {near}?")
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


def _parts(action: Action) -> list[Any]:
    """What an option may be: of a union its types, of a literal its values."""

    def parts(kind: Any) -> list[Any]:
        inner = get_args(kind) if get_origin(kind) in {Union, UnionType, Literal} else ()
        return [part for one in inner for part in parts(one)] if inner else [kind]

    return parts(getattr(action, "_typehint", action.type))


def _described(option: Option) -> str:
    """The text of an option with its default, which jsonargparse does not know: it parses what is given only."""
    return f"{option.text} (default: {'none' if option.default in (None, {}) else option.default})"


def _shared(command: str) -> dict[str, tuple[Option, ...]]:
    from .arguments import shared

    return shared(command)
