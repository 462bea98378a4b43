"""The record of a run, ``results.jsonl``: a line for each image, of which all tables are made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from anomalib_clipad.images.content import Content, Stamp
from anomalib_clipad.verdicts.regions import Region

from .lines import readable, whole_lines

if TYPE_CHECKING:
    from .finding import Finding

RECORDS = "results.jsonl"
LABELS = ("good", "defective")


class Result(NamedTuple):
    r"""What was found in an image, as it is written down.

    Attributes:
        path: As it was given; bytes that are no text as ``\udcff``.
        score: Image score.
        p_value: If the model is calibrated.
        label: ``good`` or ``defective``.
        threshold: Of the score.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        regions: Defective regions, the most abnormal first.
        name: Its pictures are ``masks/<name>.png``, ``overlays/<name>.jpg``, ``maps/<name>.png`` or ``.npy``.
        text_score: The score of the text alone, where images are compared with others too.
        reference_score: The score of that comparison alone.
        remark: What else there is to say of the image.
        decided: Whether the label is a verdict; see ``Finding``.
        file: Which file it was.
        shapes: The pixels of each region as COCO has them, where that was wanted.
        verdict: ``good``, ``look`` or ``defective``, where there are three verdicts.
    """

    path: str
    score: float
    p_value: float | None
    label: str
    threshold: float
    width: int
    height: int
    regions: tuple[Region, ...]
    name: str
    text_score: float | None = None
    reference_score: float | None = None
    remark: str | None = None
    decided: bool = True
    file: Content | None = None
    shapes: tuple[Any, ...] = ()
    verdict: str | None = None


def result_of(finding: Finding, path: str, name: str, file: Content | None = None, coco: bool = False) -> Result:
    """What is written down of a finding.

    Args:
        finding: What was found.
        path: What the image is called.
        name: Name of its pictures.
        file: Which file it was.
        coco: Whether the pixels of its regions are, for ``coco.json``.
    """
    shapes: tuple[Any, ...] = ()
    if coco:
        from .coco import segmentation

        shapes = tuple(segmentation(finding.mask, region) for region in finding.regions)
    height, width = finding.image.shape[:2]
    return Result(
        readable(path),
        float(finding.score),
        _real(finding.p_value),
        LABELS[bool(finding.label)],
        float(finding.threshold),
        width,
        height,
        tuple(_region(*region) for region in finding.regions),
        name,
        _real(finding.text_score),
        _real(finding.reference_score),
        None if finding.remark is None else readable(finding.remark),
        finding.decided,
        file,
        shapes,
        finding.verdict,
    )


def as_line(result: Result) -> str:
    """A line of ``results.jsonl``; what is no number is ``null``."""
    regions = [{name: _finite(value) for name, value in region._asdict().items()} for region in result.regions]
    for region, shape in zip(regions, result.shapes, strict=False):
        region["segmentation"] = shape
    about = {name: _finite(value) for name, value in result._asdict().items()}
    del about["shapes"]
    file = result.file
    known = None if file is None else {**file._asdict(), "stamp": file.stamp}
    return json.dumps({**about, "regions": regions, "file": known}) + "\n"


def as_result(line: bytes | str) -> Result:
    """What a line says.

    Raises:
        ValueError: If it is none of ``as_line``.
    """
    try:
        about = json.loads(line)
        shapes = tuple(shape for region in about["regions"] if (shape := region.pop("segmentation", None)) is not None)
        about["regions"] = tuple(_region(**region) for region in about["regions"])
        for name in ("score", "threshold"):
            about[name] = math.nan if about[name] is None else float(about[name])
        if (file := about["file"]) is not None:
            stamp = file["stamp"]
            about["file"] = Content(file["place"], file["digest"], None if stamp is None else Stamp(*stamp))
        return Result(**about, shapes=shapes)
    except (TypeError, KeyError, AttributeError) as error:
        msg = f"a line of {RECORDS} says {error!r}"
        raise ValueError(msg) from error


def read_results(folder: Path) -> Iterator[Result]:
    """What a run has found, one result in memory at a time.

    Raises:
        ValueError: If a line is damaged.
    """
    return map(as_result, whole_lines(folder / RECORDS))


def _region(box: Sequence[int], area: int, peak: float | None, mean: float | None, p_value: float | None) -> Region:
    left, top, width, height = map(int, box)
    peak, mean = (math.nan if value is None else float(value) for value in (peak, mean))
    return Region((left, top, width, height), int(area), peak, mean, _real(p_value))


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
