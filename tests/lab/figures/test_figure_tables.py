"""Tables of a page: their origins, what is wrong with them, and writing them anew."""

import pytest

from anomalib_clipad.lab.figures.tables import Origin, faults, rewritten, tables

WEIGHTS = "1a2b3c4d5e6f"
ROWS = "| way | AUROC |\n| --- | ---: |\n| text | 0.842 |\n"
COMMAND = "python -m anomalib_clipad.lab card --real '[$PHOTOGRAPHS]'"
OTHER = "| format | MB |\n| --- | ---: |\n| ONNX | 9.5 |\n"


def page(*comments: str) -> str:
    return "".join(f"Text.\n\n{comment}\n\n{ROWS}\n" for comment in comments)


@pytest.mark.parametrize(
    "comment",
    [
        f"<!-- figures: {COMMAND} | weights {WEIGHTS} | 0.3.0 | AMD EPYC, 2 cores -->",
        f"<!-- figures: {COMMAND} | weights none | 0.3.0 | AMD EPYC, 2 cores -->",
        f"<!-- recipe | weights {WEIGHTS} -->",
        "<!-- not measured: the paper's -->",
    ],
)
def test_numbers_of_the_shipped_weights_or_of_nobody_here_are_in_order(comment: str) -> None:
    assert list(faults(page(comment), WEIGHTS)) == []


@pytest.mark.parametrize(
    ("comment", "fault"),
    [
        (f"<!-- figures: {COMMAND} | weights 000000000000 | 0.3.0 | AMD EPYC, 2 cores -->",
         f"5: the table of '{COMMAND}' is of the weights 000000000000, not of {WEIGHTS}; run `make figures`."),
        (f"<!-- figures: {COMMAND} -->", f"5: the table of '{COMMAND}' was never written; run `make figures`."),
        ("<!-- recipe | weights 000000000000 -->", "5: the recipe is of the weights 000000000000."),
        ("<!-- a remark -->", "5: a table of numbers without their origin; expected above it "
         "<!-- figures: COMMAND -->, <!-- recipe | weights DIGEST --> or <!-- not measured: WHY -->."),
    ],
)  # fmt: skip
def test_numbers_of_other_weights_or_of_unknown_origin_are_faults(comment: str, fault: str) -> None:
    assert list(faults(page(comment), WEIGHTS)) == [fault]


@pytest.mark.parametrize("cell", ["0.8", "4.8 %", "1,303", "0.8 / 0.9", "1.0, 0.3", "+0.0000", "4e-07", "12 ms"])
def test_a_column_of_numbers_needs_an_origin(cell: str) -> None:
    assert len(list(faults(f"| what | value |\n| --- | --- |\n| one | {cell} |\n| two | |\n", WEIGHTS))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "| what | value |\n| --- | --- |\n| one | 0.5 |\n| two | as given |\n",
        "| what | value |\n| --- | --- |\n| one | `0.5` |\n",
        f"```\n{ROWS}```\n",
        f"<!-- options of model -->\n\n{ROWS}\n<!-- end of options -->\n",
    ],
)
def test_words_code_and_options_need_none(text: str) -> None:
    assert list(faults(text, WEIGHTS)) == []


def test_a_table_is_replaced_by_the_one_with_its_titles_and_nothing_else_changes() -> None:
    before = page(f"<!-- figures: {COMMAND} -->", "<!-- figures: python other -->") + OTHER
    output = "Some words.\n\n| other | one |\n| ----- | --: |\n| a     |   1 |\n\n"
    output += "| way        | AUROC |\n| ---------- | ----: |\n| text       | 0.961 |\n| text \\| 2  |     - |\n"
    after = rewritten(before, Origin(COMMAND, WEIGHTS, "0.3.0 | AMD EPYC, 2 cores"), output)
    first, second = before.split("Text.")[1:]
    first = first.replace("| text | 0.842 |", "| text | 0.961 |\n| text \\| 2 | - |")
    first = first.replace(f"{COMMAND} -->", f"{COMMAND} | weights {WEIGHTS} | 0.3.0 | AMD EPYC, 2 cores -->")
    assert after == f"Text.{first}Text.{second}"


def test_a_table_for_which_the_weights_do_not_matter_keeps_saying_so() -> None:
    after = rewritten(page(f"<!-- figures: {COMMAND} | weights none -->"), Origin(COMMAND, WEIGHTS, "0.3.0 | x"), ROWS)
    (table,) = tables(after)
    assert table.origin == Origin(COMMAND, "none", "0.3.0 | x")


def test_a_command_that_prints_another_table_is_refused_with_its_titles() -> None:
    with pytest.raises(ValueError, match=r"with the titles way \| AUROC\. Printed: format \| MB\.$"):
        rewritten(page(f"<!-- figures: {COMMAND} -->"), Origin(COMMAND, WEIGHTS, "0.3.0 | x"), OTHER)
