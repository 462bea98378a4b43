"""The table of doors as a page of the documentation: ``python tests/doors/table.py`` writes ``docs/doors.md``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from rows import DOORS, ROWS, UNEQUAL, Row

PAGE = Path(__file__).parents[2] / "docs/doors.md"
_INTRODUCTION = """\
# One answer behind every door

The same photograph, the same references and the same calibration get the same verdict, however you come in: `Engine`,
`Inspector` in Python, `anomalib-clipad inspect`, a Ray cluster, a checkpoint, an exported file, a product file, the
one-file page or the playground. A door that cannot give this verdict refuses and says why; none gives another one in
silence.

This table is written from the tests that ask every door (`tests/doors`). `=` is an equal answer: score and map to
0.0001 (maps of OpenVINO to 0.002, since it rounds otherwise when it resizes), label, p-value, regions. A number is a
refusal, whose words are below; both in one cell: some of the images are refused. The page shows no maps, and Ray writes
tables only. The playground takes no calibration images; where a row is about something else, it is asked without them.
"open" is neither: the engine stays with a checkpoint's class, and says so in a warning. Where a cell is empty, the door
is asked the like in another row.
"""


def page() -> str:
    """The page of the documentation."""
    sentences: list[str] = []
    lines = [f"| situation | {' | '.join(DOORS)} |", f"| --- |{' --- |' * len(DOORS)}"]
    lines += [f"| {row.what} | {' | '.join(cell(row, door, sentences) for door in DOORS)} |" for row in ROWS]
    notes = [f"{number}. {sentence}" for number, sentence in enumerate(sentences, 1)]
    return "\n".join([_INTRODUCTION, *lines, "", "## What is said where something is refused", "", *notes, ""])


def cell(row: Row, door: str, sentences: list[str]) -> str:
    """What a door says, with the number of a sentence; new sentences are added."""
    if door not in row.doors:
        return ""
    if (row.what, door) in UNEQUAL:
        return "open"
    words = []
    for sentence in row.sentences(door):
        if sentence is None:
            words.append("=")
            continue
        if sentence not in sentences:
            sentences.append(sentence)
        words.append(str(sentences.index(sentence) + 1))
    return ", ".join(words)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
