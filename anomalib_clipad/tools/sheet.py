"""A contact sheet: parts beside what the model finds in them, all heat maps on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 200
_GAP = 8
_TITLE = 26
_LEGEND = 40
_BLACK, _RIGHT, _WRONG = (0, 0, 0), (0, 110, 0), (200, 0, 0)
_TRUE_CONTOUR, _FOUND_CONTOUR = (0, 255, 0), (255, 255, 255)

Pixels = NDArray[np.uint8]


class Tile(NamedTuple):
    """An image and what the model says of it.

    Attributes:
        title: What it shows.
        image: The image (H, W, 3), RGB, 0 to 255.
        mask: Its defect (H, W); empty where it is good.
        anomaly_map: The normalised map (h, w) in [0, 1].
        found: Where the model sees a defect (h, w).
        score: The normalised score in [0, 1].
        defective: The model's verdict.
    """

    title: str
    image: Pixels
    mask: NDArray[np.bool_]
    anomaly_map: NDArray[np.float32]
    found: NDArray[np.bool_]
    score: float
    defective: bool

    @property
    def verdict(self) -> str:
        """Score and verdict in words, and whether it is wrong."""
        words = f"{self.score:.2f} {'defective' if self.defective else 'good'}"
        mistake = "" if self.right else ", a false alarm" if self.defective else ", missed"
        return words + mistake

    @property
    def right(self) -> bool:
        """Whether the verdict is that of the mask."""
        return self.defective == bool(self.mask.any())


def write_sheet(path: Path, tiles: Sequence[Tile], columns: int) -> None:
    """Write tiles as a PNG, ``columns`` of them beside each other, and a legend below.

    Raises:
        ValueError: If there are no tiles.
    """
    if not tiles:
        msg = "A sheet needs at least one tile."
        raise ValueError(msg)
    cells = [draw(tile) for tile in tiles]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    lines = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    sheet = np.vstack([*lines, _legend(lines[0].shape[1])])
    _, encoded = cv2.imencode(".png", sheet[..., ::-1])
    path.write_bytes(encoded.tobytes())


def heat(values: NDArray[np.float32]) -> Pixels:
    """Colours of map values (H, W) on the fixed scale from 0, blue, over the threshold 0.5, green, to 1, red."""
    levels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1].astype(np.uint8)


def draw(tile: Tile) -> Pixels:
    """The image with the true contour and the heat map with the found one, below title and verdict."""
    size = (_SIDE, _SIDE)
    image = cv2.resize(tile.image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    overlay = cv2.addWeighted(grey, 0.4, heat(cv2.resize(tile.anomaly_map, size).astype(np.float32)), 0.6, 0)
    cell = np.full((_TITLE + _SIDE + _GAP, 2 * (_SIDE + _GAP) + _GAP, 3), 255, np.uint8)
    _write(cell, tile.title, _GAP, _BLACK)
    width = cv2.getTextSize(tile.verdict, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0]
    _write(cell, tile.verdict, cell.shape[1] - _GAP - width, _RIGHT if tile.right else _WRONG)
    panels = ((image, tile.mask, _TRUE_CONTOUR), (overlay.astype(np.uint8), tile.found, _FOUND_CONTOUR))
    for number, (panel, mask, colour) in enumerate(panels):
        left = _GAP + number * (_SIDE + _GAP)
        cell[_TITLE : _TITLE + _SIDE, left : left + _SIDE] = _outlined(panel, mask, colour)
    return cell


def _outlined(picture: Pixels, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> Pixels:
    picture = np.ascontiguousarray(picture)
    region = cv2.resize(mask.astype(np.uint8), picture.shape[:2], interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, colour, 1)
    return picture


def _legend(width: int) -> Pixels:
    strip = np.full((_LEGEND, width, 3), 255, np.uint8)
    length = _SIDE
    strip[8:24, _GAP : _GAP + length] = heat(np.linspace(0, 1, length, dtype=np.float32)[None])
    for value, left in (("0", 0), ("0.5", length // 2 - 10), ("1", length - 8)):
        cv2.putText(strip, value, (_GAP + left, 36), cv2.FONT_HERSHEY_SIMPLEX, 0.38, _BLACK, 1, cv2.LINE_AA)
    _write(strip, "0.5: threshold. Green: the defect. White: what is found.", length + 3 * _GAP, _BLACK, 21)
    return strip


def _write(picture: Pixels, text: str, left: int, colour: tuple[int, int, int], bottom: int = 18) -> None:
    cv2.putText(picture, text, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
