"""`python -m anomalib_clipad.lab figures`: run the commands of measured tables and rewrite these, or check them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

from .measured import measured, missing, shipped_weights
from .tables import Origin, faults, rewritten, tables

ROOT = Path(__file__).parents[3]
KEPT = Path("build/figures")


def figures(names: Sequence[str] = (), check: bool = False) -> None:
    """Run the command of each measured table in README and docs, and write what it prints in place of the table.

    What was measured with these weights and this version is in ``build/figures`` and not run again.

    Args:
        names: Words in the commands to run, such as ``mini-card``; by default all.
        check: Run nothing, change nothing, and end with status 1 if a table is of other weights or of unknown origin.

    Raises:
        ValueError: If a name is in no command.
    """
    weights, pages = shipped_weights(), [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if check:
        wrong = [f"{page.relative_to(ROOT)}:{fault}" for page in pages for fault in faults(_text(page), weights)]
    else:
        wrong = [fault for command in _chosen(pages, names) for fault in _renewed(command, weights, pages)]
    if wrong:
        sys.exit("\n".join(wrong))


def commands(pages: Sequence[Path]) -> list[str]:
    """The commands of all measured tables, each once, in the order of the pages."""
    origins = (table.origin for page in pages for table in tables(_text(page)))
    return list(dict.fromkeys(origin.command for origin in origins if origin))


def _chosen(pages: Sequence[Path], names: Sequence[str]) -> list[str]:
    every = commands(pages)
    for name in names:
        if not any(name in command.split() for command in every):
            msg = f"No measured table has a command with '{name}'. Commands:\n" + "\n".join(every)
            raise ValueError(msg)
    return [command for command in every if not names or set(names) & set(command.split())]


def _renewed(command: str, weights: str, pages: Sequence[Path]) -> Iterator[str]:
    """Run a command and rewrite its tables; what went wrong."""
    if unset := missing(command):
        yield f"Left out: '{command}', since {', '.join(unset)} is not set; see docs/evaluation.md."
        return
    begin = perf_counter()
    try:
        found = measured(command, weights, ROOT / KEPT, ROOT)
        origin = Origin(command, found.weights, f"{found.version} | {found.processor}")
        for page in pages:
            before = _text(page)
            if (after := rewritten(before, origin, found.output)) != before:
                page.write_text(after, encoding="utf-8")
    except (RuntimeError, ValueError) as error:
        yield str(error)
        return
    print(f"{(perf_counter() - begin) / 60:.1f} min: {command}", flush=True)


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")
