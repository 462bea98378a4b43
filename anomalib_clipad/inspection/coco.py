"""Defective regions as COCO JSON, which CVAT, Label Studio, FiftyOne and others open."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.storage import atomic_folder

from .records import Result, read_results

if TYPE_CHECKING:
    from anomalib_clipad.verdicts.regions import Region

COCO = "coco.json"
CATEGORY = {"id": 1, "name": "defect", "supercategory": "defect"}


def write_coco(folder: Path, once: bool = True) -> None:
    """Write ``coco.json`` of a record, one image in memory at a time.

    ``file_name`` is the path of an image as in all tables: it leads to the file from where the run was started. An
    annotation's ``score`` is the peak of its region; ``attributes`` hold the mean and the p-value. With three
    verdicts an image has its ``verdict``.

    Args:
        folder: Of the run; the file is replaced as a whole or not at all.
        once: Whether each file is in the record once. Else what was found in it last counts.
    """
    rest = {"categories": [CATEGORY], "info": {"description": "Found by anomalib-clipad inspect"}, "licenses": []}
    last = None if once else {hash(result.path): number for number, result in enumerate(read_results(folder))}

    def results() -> Iterator[tuple[int, Result]]:
        found = enumerate(read_results(folder))
        kept = (result for number, result in found if last is None or last[hash(result.path)] == number)
        return enumerate(kept, 1)

    images = ({"id": number, **_image(result)} for number, result in results())
    boxes = (
        {"image_id": number, **_annotation(region, shape)}
        for number, result in results()
        for region, shape in zip(result.regions, result.shapes, strict=True)
    )
    annotations = ({"id": number, **box} for number, box in enumerate(boxes, 1))
    with atomic_folder(folder) as new, (new / COCO).open("w", encoding="utf-8") as file:
        file.write('{"images": [')
        file.writelines(_separated(images))
        file.write('],\n"annotations": [')
        file.writelines(_separated(annotations))
        file.write("],\n" + json.dumps(rest)[1:] + "\n")


def _image(result: Result) -> dict[str, Any]:
    verdict = {} if result.verdict is None else {"verdict": result.verdict}
    path = PurePath(result.path).as_posix()
    return {"file_name": path, "width": result.width, "height": result.height, **verdict}


def _annotation(region: Region, shape: Any) -> dict[str, Any]:
    return {
        "category_id": CATEGORY["id"],
        "bbox": list(region.box),
        "area": region.area,
        "iscrowd": int(isinstance(shape, dict)),  # where readers of COCO expect run lengths
        "segmentation": shape,
        "score": _number(region.peak),
        "attributes": {"mean": _number(region.mean), "p_value": _number(region.p_value)},
    }


def segmentation(mask: NDArray[np.bool_], region: Region) -> list[list[int]] | dict[str, list[int]]:
    """The pixels of a region as COCO has them.

    Args:
        mask: Of all regions of the image (H, W).
        region: One of them.

    Returns:
        A polygon along the borders of its pixels, x and y in turns; or, if it has holes, which polygons of COCO cannot
        have, run lengths of the whole image, not compressed.
    """
    left, top, width, height = region.box
    pixels = _connected(mask[top : top + height, left : left + width], region.area)
    outline = _outline(pixels)
    if outline is None:
        return _run_lengths(pixels, left, top, mask.shape)
    return [np.add(outline, (left, top)).ravel().tolist()]


def _connected(window: NDArray[np.bool_], area: int) -> NDArray[np.uint8]:
    """The region that fills the window; others may reach into it."""
    pixels = window.astype(np.uint8)
    count, numbers, statistics, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
    for number in range(1, count):
        if statistics[number].tolist() == [0, 0, window.shape[1], window.shape[0], area]:
            return (numbers == number).astype(np.uint8)
    return pixels


def _outline(pixels: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Corners (n, 2) of the border around pixels; ``None`` if there is more than one border, or none.

    OpenCV's contours run through the centres of pixels. At twice the size each pixel has centres to the left and right
    of its own, which go to its left and right border.
    """
    doubled = pixels.repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if len(contours) != 1:
        return None
    corners = (contours[0][:, 0].astype(np.int64) + 1) // 2
    return corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]


def _run_lengths(pixels: NDArray[np.uint8], left: int, top: int, size: tuple[int, ...]) -> dict[str, list[int]]:
    """Lengths of runs of zeros and ones in turns, column by column, zeros first."""
    height, width = size
    whole = np.zeros((width, height), np.uint8)
    whole[left : left + pixels.shape[1], top : top + pixels.shape[0]] = pixels.T
    changes = np.flatnonzero(np.diff(whole.ravel(), prepend=np.uint8(0)))
    counts = np.diff(np.concatenate([[0], changes, [whole.size]]))
    return {"size": [height, width], "counts": counts.tolist()}


def _number(value: float | None) -> float | None:
    """JSON has no other numbers than finite ones."""
    return float(value) if value is not None and math.isfinite(value) else None


def _separated(objects: Iterable[dict[str, Any]]) -> Iterator[str]:
    for number, item in enumerate(objects):
        yield (",\n" if number else "\n") + json.dumps(item)
