"""`anomalib-clipad teach`: images ticked as good join the references, and a report says what that changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_clipad.checks import check_counts

if TYPE_CHECKING:
    from anomalib_clipad.inspection.teaching import Lesson

REPORT = "taught.html"
_ROWS = 20
"""Rows of the table in the terminal; the report has all."""


def teach(
    ticks: list[Path],
    class_name: str | None = None,
    model: Path | None = None,
    product: Path | None = None,
    settings: dict[str, Any] | None = None,
    decision: dict[str, Any] | None = None,
    unticked: list[str] | None = None,
    batch_size: int = 8,
    workers: int = 2,
    threads: int | None = None,
    output: Path = Path("taught.ckpt"),
    report: Path = Path(REPORT),
    debug: bool = False,  # noqa: ARG001  # read by the command line
) -> None:
    """Let images ticked as good join the references, as whole images, and report what that changes.

    Args:
        ticks: Files of ticks that pages of `anomalib-clipad inspect` let download; their order does not matter.
        class_name: What the images show, such as hazelnut.
        model: Checkpoint (.ckpt), in place of a backbone; then the references are those it has, passed again.
        product: File of `anomalib-clipad product`, likewise.
        settings: Those by which a model is built.
        decision: What images are compared with, and what is called defective.
        unticked: The other images of the list that was ticked: files, folders, patterns, lists. The report tells of
            them, and none of them may calibrate the taught model.
        batch_size: Images that are scored together.
        workers: Threads that read images.
        threads: CPU threads of torch; by default all.
        output: Checkpoint (.ckpt) or product file (.safetensors) to write.
        report: Page to write.
        debug: Show where an error comes from.

    Raises:
        ValueError: If an option is not valid, the ticks teach nothing, or a reference is not at hand.
        FileNotFoundError: If a file is not there.
        OSError: If a file cannot be written; it is then as it was before.
    """
    from anomalib_clipad.images.picture import Picture
    from anomalib_clipad.inspection.inspector import Inspector
    from anomalib_clipad.inspection.saving import check_suffix
    from anomalib_clipad.inspection.sources import find
    from anomalib_clipad.inspection.taught_page import write_lesson

    check_counts(threads=threads)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    check_suffix(output)
    asked = dict(decision or {})
    calibration, rate = asked.get("calibration"), asked.get("false_alarm_rate")
    if calibration is not None and rate is None:
        msg = "--calibration calibrates a false-alarm rate; pass --false_alarm_rate too, such as 0.05."
        raise ValueError(msg)
    if calibration is None and rate is not None:
        msg = "Taught images do not calibrate: pass --calibration, a folder of other normal images, with the rate."
        raise ValueError(msg)
    if calibration is not None and output.suffix != ".ckpt":
        msg = f"{output}: a product file holds no calibration. Write a checkpoint (.ckpt), or leave out --calibration."
        raise ValueError(msg)
    sources = [source.image for source in find(unticked)] if unticked else []
    if any(isinstance(image, Picture) for image in sources):
        msg = "Teaching reads images twice, so that they have to be files: write the frames of a film as files first."
        raise ValueError(msg)
    again = asked.pop("references", None) if model is not None or product is not None else None
    how = {"class_name": class_name, "model": model, "product": product, **(settings or {}), **asked}
    inspector = Inspector(**how, batch_size=batch_size, workers=workers)
    lesson = inspector.teach(ticks, unticked=sources, references=again, calibration=calibration, false_alarm_rate=rate)
    inspector.save(output)
    write_lesson(report, lesson)
    _tell(lesson, output, report)


def _tell(lesson: Lesson, output: Path, report: Path) -> None:
    """Every verdict that changes, and what there is to say."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    changed = lesson.changed
    table = Table(title=f"{len(changed)} verdicts change")
    table.add_column("image", overflow="fold")
    for name in ("ticked", "before", "now"):
        table.add_column(name, justify="right")
    for one in changed[:_ROWS]:
        table.add_row(Text(one.path), one.truth, str(one.before), str(one.after))
    console = Console()
    if changed:
        console.print(table)
    if len(changed) > _ROWS:
        console.print(f"and {len(changed) - _ROWS} more, in {report}", highlight=False)
    for sentence in (*lesson.sentences(), str(output), str(report)):
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)
