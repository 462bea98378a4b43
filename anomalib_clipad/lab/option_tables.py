"""Tables of options in docs, written from where the options are declared.

``python -m anomalib_clipad.lab option-tables`` writes what stands between ``<!-- options of NAME -->`` and
``<!-- end of options -->``; with ``--check`` it fails if that differs, or if the docstring or the signature of
``ClipAD`` says something else than ``Settings``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from anomalib_clipad.settings import Option, Settings
from anomalib_clipad.tools.arguments import MODEL
from anomalib_clipad.tools.cli import command_of

ROOT = Path(__file__).parents[2]
PAGES = tuple(f"docs/{name}.md" for name in ("model", "inspection", "playground", "references", "teaching", "web"))
_BLOCK = re.compile(r"(<!-- options of (\S+) -->\n).*?(<!-- end of options -->)", re.DOTALL)
_COMPONENTS: set[str | int] = {"pre_processor", "post_processor", "evaluator", "visualizer"}
"""Arguments of ``ClipAD`` that are anomalib's own."""


def option_tables(check: bool = False) -> None:
    """Write the tables of options, or compare them.

    Args:
        check: Change nothing, and end with status 1 if something differs.
    """
    wrong = [f"{name}: {fault}" for name, fault in drifted(clipad_options())]
    for page in PAGES:
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        if filled(text) == text:
            continue
        if check:
            wrong.append(f"{page}: a table of options differs; run python -m anomalib_clipad.lab option-tables.")
        else:
            path.write_text(filled(text), encoding="utf-8")
    if wrong:
        sys.exit("\n".join(wrong))


def filled(text: str) -> str:
    """A page of Markdown with its tables of options as they are to be."""
    return _BLOCK.sub(lambda block: f"{block[1]}{table(block[2])}{block[3]}", text)


@cache
def table(name: str) -> str:
    """A table: of ``ClipAD``, of the ``model`` (what all commands share that build one), or a command's other options.

    Raises:
        KeyError: If there is no such command.
    """
    if name == "ClipAD":
        head, rows = "parameter", {f"`{option.name}`": option for option in clipad_options()}
    else:
        head, rows = "option", dict(_flags(name))
    lines = [f"| {flag} | {_shown(option.default)} | {_cell(option.text)} |" for flag, option in rows.items()]
    return "\n".join(["", f"| {head} | default | meaning |", "| --- | --- | --- |", *lines, "", ""])


@cache
def clipad_options() -> tuple[Option, ...]:
    """The arguments of ``ClipAD``, with the descriptions of its docstring."""
    import anomalib.models  # noqa: F401  # first: when it has loaded, it loads ClipAD

    from anomalib_clipad.lightning_model import ClipAD

    parser = ArgumentParser()
    names = parser.add_class_arguments(ClipAD, as_group=False, skip=_COMPONENTS)
    defaults = {name: one.default for name, one in signature(ClipAD).parameters.items()}
    texts = {action.dest: _one_line(str(action.help)) for action in parser._actions}
    return tuple(Option(name, None, defaults[name], texts[name]) for name in names)


def drifted(options: tuple[Option, ...]) -> Iterator[tuple[str, str]]:
    """Which arguments of ``ClipAD`` are others than those of ``Settings``, and what is wrong; it may add sentences."""
    given = {option.name: option for option in options}
    for option in MODEL:
        own = given[option.name]
        if not own.text.startswith(option.text):
            yield f"ClipAD's {option.name}", f"its docstring has to begin with '{option.text}'; it is '{own.text}'."
        if option.name != "adapter" and Settings.of(**{option.name: own.default}) != Settings():
            yield f"ClipAD's {option.name}", f"its default has to be {option.default!r}; it is {own.default!r}."


def _flags(name: str) -> Iterator[tuple[str, Option]]:
    if name == "model":
        yield from ((f"`--{option.name}`", option) for option in MODEL)
        return
    command = command_of(name)
    shared = {option.name: option for options in command.shared.values() for option in options}
    for action in command.parser._actions:
        if action.dest in {"help", *(option.name for option in MODEL)}:
            continue
        flags = ", ".join(f"`{flag}`" for flag in action.option_strings if not flag.endswith("+"))
        own = Option(action.dest, None, action.default, _one_line(str(action.help)))
        yield flags or f"`{action.dest}`", shared.get(action.dest, own)


def _one_line(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _shown(default: Any) -> str:
    if default is None or default == {}:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    return (
        f"{default:g}" if isinstance(default, float) else str(default) if isinstance(default, int) else f"`{default}`"
    )
