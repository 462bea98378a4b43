"""Films: their frames, and whether they are all there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from anomalib_clipad.images.picture import Picture, UnreadableError

_ESTIMATED = frozenset({".mkv", ".webm", ".mpg", ".mpeg"})
"""Containers that do not count their frames: OpenCV works their number out of length and rate."""
_SHARE, _FEW = 0.05, 2
"""How much fewer frames such a film may have: this share, or so many."""


def frames(path: Path) -> Iterator[Picture]:
    """The frames of a film, numbered from 1: ``film.mp4#000001``.

    Raises:
        UnreadableError: If OpenCV cannot read it; or, after its frames, if there are fewer than it says it has.
    """
    import cv2

    film = cv2.VideoCapture(str(path))
    try:
        if not film.isOpened():
            msg = f"{path} is no video that OpenCV can read, or is damaged."
            raise UnreadableError(msg)
        said = round(film.get(cv2.CAP_PROP_FRAME_COUNT))
        number = 0
        while True:
            more, frame = film.read()
            if not more:
                break
            number += 1
            place = path.with_name(f"{path.name}#{number:06d}")
            yield Picture(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), place)
    finally:
        film.release()
    _check_count(path, number, said)


def _check_count(path: Path, found: int, said: int) -> None:
    slack = max(_FEW, _SHARE * said) if path.suffix.lower() in _ESTIMATED else 0
    if found and found + slack >= said:
        return
    of = f"{found} of {said}" if said > 0 else str(found)
    msg = f"{path} ends early: {of} frames can be read. It is cut off or damaged; copy it anew."
    raise UnreadableError(msg)
