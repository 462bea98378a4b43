"""A contact sheet: image, mask and heat map side by side."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_CELL = 240
_GAP = 8
_TITLE = 26


class Tile(NamedTuple):
    """One picture of the sheet.

    Attributes:
        title: What it shows.
        image: The picture (H, W, 3) in [0, 1].
        mask: Its defect (H, W).
        anomaly_map: What the model finds (H, W), in any unit.
    """

    title: str
    image: NDArray[np.float32]
    mask: NDArray[np.bool_]
    anomaly_map: NDArray[np.float32]


def write_sheet(path: Path, tiles: list[Tile], columns: int = 2) -> None:
    """Write tiles as a PNG, ``columns`` of them beside each other; each map is stretched to its own range."""
    cells = [_draw(tile) for tile in tiles]
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % columns)
    lines = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    _, encoded = cv2.imencode(".png", np.vstack(lines)[..., ::-1])
    path.write_bytes(encoded.tobytes())


def _draw(tile: Tile) -> NDArray[np.uint8]:
    image = cv2.resize((np.clip(tile.image, 0, 1) * 255).astype(np.uint8), (_CELL, _CELL), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(tile.mask.astype(np.uint8) * 255, (_CELL, _CELL), interpolation=cv2.INTER_NEAREST)
    span = np.ptp(tile.anomaly_map)
    share = (tile.anomaly_map - tile.anomaly_map.min()) / (span if span > 0 else 1)
    heat = cv2.applyColorMap((cv2.resize(share, (_CELL, _CELL)) * 255).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    overlay = cv2.addWeighted(image, 0.45, np.ascontiguousarray(heat), 0.55, 0)
    sheet = np.full((_CELL + _TITLE + _GAP, 3 * (_CELL + _GAP) + 2 * _GAP, 3), 255, np.uint8)
    cv2.putText(sheet, tile.title, (_GAP, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    for i, picture in enumerate((image, np.repeat(mask[..., None], 3, axis=2), overlay)):
        left = _GAP + i * (_CELL + _GAP)
        sheet[_TITLE : _TITLE + _CELL, left : left + _CELL] = picture
    return sheet
