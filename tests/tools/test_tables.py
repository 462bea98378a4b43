"""The writer of Markdown tables: formats, alignment, and what cannot be a number."""

import pytest

from anomalib_clipad.tools.tables import markdown_table

COLUMNS = [("format", ""), ("MB", ".1f"), ("change", "+.4f")]


def test_numbers_are_formatted_by_column_and_aligned_to_the_right() -> None:
    table = markdown_table(COLUMNS, [["torch", 8.64, 0.0], ["OpenVINO", 119, -0.03151]])
    assert table.splitlines() == [
        "| format   |    MB |  change |",
        "| -------- | ----: | ------: |",
        "| torch    |   8.6 | +0.0000 |",
        "| OpenVINO | 119.0 | -0.0315 |",
    ]


def test_an_undefined_number_is_a_dash_and_text_in_a_number_column_stays() -> None:
    assert markdown_table(COLUMNS, [["ONNX", float("nan"), "n/a"]]).splitlines()[-1] == "| ONNX   |   - |    n/a |"


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert r"a\|b" in markdown_table(COLUMNS, [["a|b", 1.0, 0.0]])


def test_no_rows_are_a_head_alone() -> None:
    assert len(markdown_table(COLUMNS, []).splitlines()) == 2


@pytest.mark.parametrize("row", [["torch", 1.0], ["torch", 1.0, 0.0, 0.0]])
def test_a_row_has_a_cell_for_each_column(row: list[str | float]) -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        markdown_table(COLUMNS, [row])
