"""`python -m anomalib_clipad.lab figures`: pages are rewritten by real processes, once, and checked."""

from pathlib import Path

import pytest

from anomalib_clipad.lab.figures import figures as module
from anomalib_clipad.lab.figures.figures import figures
from anomalib_clipad.lab.figures.measured import machine, shipped_weights

PRINT = 'python -c \'import sys, pathlib; pathlib.Path("runs").open("a").write("x"); print(sys.argv[1])\''


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A README and a page with a table each, of one command, and another table of a command that fails."""
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setenv("PHOTOGRAPHS", "| way | AUROC |\n| --- | ---: |\n| text | 0.9 |")
    (tmp_path / "docs").mkdir()
    table = f'<!-- figures: {PRINT} "$PHOTOGRAPHS" -->\n\n| way | AUROC |\n| --- | ---: |\n| text | 0.1 |\n'
    broken = "\n<!-- figures: python -c 'raise SystemExit(\"no card\")' broken -->\n\n| a |\n| --- |\n| 0.1 |\n"
    (tmp_path / "README.md").write_text(table)
    (tmp_path / "docs/card.md").write_text(table + broken)
    return tmp_path


def test_pages_are_rewritten_and_what_fails_is_said_at_the_end(root: Path) -> None:
    with pytest.raises(SystemExit, match=r"^'python -c .*broken' ended with status 1: no card$"):
        figures()
    for page in ("README.md", "docs/card.md"):
        text = (root / page).read_text()
        assert "| text | 0.9 |" in text
        assert f" | weights {shipped_weights()} | " in text
        assert machine().split(",")[0] in text
    assert "| 0.1 |\n" in (root / "docs/card.md").read_text()


def test_a_second_run_measures_nothing_and_writes_what_was_measured(root: Path) -> None:
    figures(['"$PHOTOGRAPHS"'])
    (root / "README.md").write_text((root / "README.md").read_text().replace("0.9", "0.3"))
    figures(['"$PHOTOGRAPHS"'])
    assert "| text | 0.9 |" in (root / "README.md").read_text()
    assert (root / "runs").read_text() == "x"


def test_a_command_whose_photographs_nobody_has_is_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHOTOGRAPHS")
    with pytest.raises(SystemExit, match=r"^Left out: .* since PHOTOGRAPHS is not set"):
        figures(['"$PHOTOGRAPHS"'])
    assert not (root / "runs").exists()


def test_a_name_in_no_command_lists_the_commands(root: Path) -> None:
    with pytest.raises(ValueError, match=r"No measured table has a command with 'crad'\. Commands:\npython -c"):
        figures(["crad"])


def test_the_check_names_page_and_line(root: Path) -> None:
    with pytest.raises(SystemExit, match=r"^README\.md:3: the table of 'python -c .* was never written"):
        figures(check=True)
    assert not (root / "runs").exists()
