"""The documentation: every relative link and every section that a docstring names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "tests/golden/README.md"]
POINTER = re.compile(r"(docs/\w+\.md), ([A-Z][^).\n]*)")


def headings(page: Path) -> list[str]:
    """Headings of a Markdown page, without those that only look like one in a block of code."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, section = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not section or section in map(anchor, headings(file)), target


def test_docstrings_name_sections_that_exist() -> None:
    pointers = [
        (file, *pointer)
        for file in sorted([*ROOT.glob("anomalib_clipad/**/*.py"), *ROOT.glob("tests/**/*.py")])
        for pointer in POINTER.findall(file.read_text(encoding="utf-8"))
    ]
    assert pointers
    for file, page, section in pointers:
        names = [re.sub(r"^[\d.]+ ", "", heading) for heading in headings(ROOT / page)]
        assert section in names, f"{file.name}: {page} has no section '{section}'"


def test_every_room_is_on_the_plan() -> None:
    plan = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    package = [path for path in (ROOT / "anomalib_clipad").iterdir() if not path.name.startswith(("_", "."))]
    rooms = [f"{path.name}/" if path.is_dir() else path.name for path in package if path.suffix != ".typed"]
    assert [room for room in sorted(rooms) if f"`{room}`" not in plan] == []
