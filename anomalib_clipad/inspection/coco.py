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

from .lines import readable, whole_lines

if TYPE_CHECKING:
    from anomalib_clipad.verdicts.regions import Region

    from .finding import Finding

CATEGORY = {"id": 1, "name": "defect", "supercategory": "defect"}


def coco_entry(finding: Finding, name: PurePath) -> str:
    """An image and its annotations as a line of JSON, without ids: those are counted when the file is written.

    An annotation's ``score`` is the peak of its region; ``attributes`` hold the mean and the p-value.

    Args:
        finding: What was found.
        name: Path of the image below the folder that other programs are told of.
    """
    height, width = finding.image.shape[:2]
    image = {"file_name": readable(name.as_posix()), "width": width, "height": height}
    annotations = [_annotation(finding.mask, region) for region in finding.regions]
    return json.dumps({"image": image, "annotations": annotations}) + "\n"


def write_coco(entries: Path, target: Path) -> None:
    """Write a COCO file from a file of entries, one image in memory at a time.

    Args:
        entries: Lines that ``coco_entry`` has made.
        target: File to write; replaced as a whole or not at all.
    """
    rest = {"categories": [CATEGORY], "info": {"description": "Found by anomalib-clipad inspect"}, "licenses": []}
    read = (json.loads(line) for line in whole_lines(entries))
    images = ({"id": number, **entry["image"]} for number, entry in enumerate(read, 1))
    again = (json.loads(line) for line in whole_lines(entries))
    boxes = ({"image_id": number, **box} for number, entry in enumerate(again, 1) for box in entry["annotations"])
    annotations = ({"id": number, **box} for number, box in enumerate(boxes, 1))
    with atomic_folder(target.parent) as folder, (folder / target.name).open("w", encoding="utf-8") as file:
        file.write('{"images": [')
        file.writelines(_separated(images))
        file.write('],\n"annotations": [')
        file.writelines(_separated(annotations))
        file.write("],\n" + json.dumps(rest)[1:] + "\n")


def _annotation(mask: NDArray[np.bool_], region: Region) -> dict[str, Any]:
    shape = segmentation(mask, region)
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
