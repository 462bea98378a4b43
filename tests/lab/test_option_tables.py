"""Tables of options: what stands in the documentation is what the code declares."""

from pathlib import Path

import pytest

from anomalib_clipad.lab import option_tables as module
from anomalib_clipad.lab.option_tables import PAGES, ROOT, clipad_options, drifted, filled, option_tables, table
from anomalib_clipad.tools.arguments import MODEL


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the documentation."""
    for page in PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text((ROOT / page).read_text())
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def test_a_changed_word_fails_the_check_and_is_written_anew(pages: Path) -> None:
    page = pages / "docs/model.md"
    before = page.read_text()
    assert "Share of the text in [0, 1]" in before
    page.write_text(before.replace("Share of the text in [0, 1]", "Weight of the text"))
    with pytest.raises(SystemExit, match=r"^docs/model\.md: a table of options differs"):
        option_tables(check=True)
    assert "Weight of the text" in page.read_text()
    option_tables()
    assert page.read_text() == before
    option_tables(check=True)


@pytest.mark.parametrize(("was", "now"), [("Share of", "Weight of"), ("where images", "if images")])
def test_a_docstring_of_the_model_that_says_something_else_fails_the_check(
    pages: Path, monkeypatch: pytest.MonkeyPatch, was: str, now: str
) -> None:
    changed = tuple(option._replace(text=option.text.replace(was, now)) for option in clipad_options())
    monkeypatch.setattr(module, "clipad_options", lambda: changed)
    with pytest.raises(SystemExit, match="ClipAD's text_weight: its docstring has to begin with 'Share of the text"):
        option_tables(check=True)


def test_a_default_of_the_model_that_is_another_is_named() -> None:
    changed = tuple(one._replace(default=4.0) if one.name == "smoothing" else one for one in clipad_options())
    assert list(drifted(changed)) == [("ClipAD's smoothing", "its default has to be None; it is 4.0.")]


def test_every_option_of_the_model_is_in_both_tables() -> None:
    for option in MODEL:
        assert f"| `{option.name}` |" in table("ClipAD")
        assert f"| `--{option.name}` |" in table("model")
    assert "--backbone" not in table("inspect")
    assert "| `-o`, `--output` | `inspection` |" in table("inspect")


def test_text_outside_of_a_block_stays() -> None:
    assert filled("before\n| a | b |\nafter\n") == "before\n| a | b |\nafter\n"


def test_every_page_has_a_block() -> None:
    assert all("<!-- options of " in (ROOT / page).read_text() for page in PAGES)
