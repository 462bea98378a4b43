"""A contact sheet: parts beside what was found in them, and verdicts in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.inspection.finding import Finding

_SIDE = 200
_GAP = 8
_HEAD = 46
_LEGEND = 48
_LINES = (18, 38)
"""Where the two lines of words stand, in pixels from the top."""
_BLACK, _GREY, _RIGHT, _WRONG = (0, 0, 0), (90, 90, 90), (0, 110, 0), (200, 0, 0)
_CONTOUR = (0, 255, 0)

Pixels = NDArray[np.uint8]


class Tile(NamedTuple):
    """A part, what was found in it, and what it truly is.

    Attributes:
        name: What it is called, such as ``gear/crack/001``.
        finding: What was found.
        mask: Its defect (H, W); empty where it is good.
    """

    name: str
    finding: Finding
    mask: NDArray[np.bool_]

    @property
    def defective(self) -> bool:
        """What it truly is."""
        return bool(self.mask.any())

    @property
    def right(self) -> bool:
        """Whether the verdict is that of the mask."""
        return self.finding.label == self.defective

    @property
    def verdict(self) -> str:
        """The verdict in words, and whether it is wrong."""
        words = "defective" if self.finding.label else "good"
        return words if self.right else f"{words}: {'missed' if self.defective else 'false alarm'}"

    @property
    def numbers(self) -> str:
        """Score and p-value in words."""
        p_value = self.finding.p_value
        return f"score {self.finding.score:.3f}" + ("" if p_value is None else f", p-value {p_value:.3f}")


def write_sheet(path: Path, tiles: Sequence[Tile], columns: int, legend: str) -> None:
    """Write tiles as a PNG, ``columns`` of them beside each other.

    Args:
        path: The picture.
        tiles: What it shows.
        columns: How many stand beside each other.
        legend: What is said below them, after the scale of the heat maps.

    Raises:
        ValueError: If there are no tiles.
    """
    if not tiles:
        msg = "A sheet needs at least one tile."
        raise ValueError(msg)
    cells = [draw(tile) for tile in tiles]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    lines = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    sheet = np.vstack([*lines, _below(lines[0].shape[1], legend)])
    _, encoded = cv2.imencode(".png", sheet[..., ::-1])
    path.write_bytes(encoded.tobytes())


def draw(tile: Tile) -> Pixels:
    """The part with the true contour beside the part under its heat map, below name, verdict and numbers."""
    size = (_SIDE, _SIDE)
    image = cv2.resize(tile.finding.image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    cell = np.full((_HEAD + _SIDE + _GAP, 2 * (_SIDE + _GAP) + _GAP, 3), 255, np.uint8)
    _write(cell, tile.name, _GAP, _LINES[0])
    _write(cell, tile.verdict, -_GAP, _LINES[0], _RIGHT if tile.right else _WRONG)
    _write(cell, tile.numbers, -_GAP, _LINES[1], _GREY)
    for number, panel in enumerate((_outlined(image, tile.mask), tile.finding.small_overlay(image))):
        left = _GAP + number * (_SIDE + _GAP)
        cell[_HEAD : _HEAD + _SIDE, left : left + _SIDE] = panel
    return cell


def _outlined(picture: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    picture = picture.copy()
    region = cv2.resize(mask.astype(np.uint8), picture.shape[:2], interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, _CONTOUR, 1)
    return picture


def _below(width: int, legend: str) -> Pixels:
    """The scale of the heat maps, which has the threshold in its middle, and words."""
    strip = np.full((_LEGEND, width, 3), 255, np.uint8)
    ramp = np.tile(np.linspace(0, 1, _SIDE, dtype=np.float32), (16, 1))
    grey = np.full((*ramp.shape, 3), 128, np.uint8)
    strip[8:24, _GAP : _GAP + _SIDE] = Finding(grey, 1, True, 0.5, ramp).small_overlay(grey)
    for value, left in (("0", 0), ("threshold", _SIDE // 2 - 28), ("1", _SIDE - 8)):
        _write(strip, value, _GAP + left, 40, scale=0.4)
    _write(strip, legend[:1].upper() + legend[1:] + ".", _SIDE + 3 * _GAP, _LINES[0])
    _write(strip, "Green: the defect. White: what is found. Red words: a wrong verdict.", _SIDE + 3 * _GAP, _LINES[1])
    return strip


def _write(
    picture: Pixels, text: str, left: int, bottom: int, colour: tuple[int, int, int] = _BLACK, scale: float = 0.5
) -> None:
    """Write words; a negative ``left`` is the distance of their end from the right edge."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    if left < 0:
        left += picture.shape[1] - cv2.getTextSize(text, font, scale, 1)[0][0]
    cv2.putText(picture, text, (left, bottom), font, scale, colour, 1, cv2.LINE_AA)
