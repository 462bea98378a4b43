"""What tells images apart: exact copies by their pixels, near-copies (re-encoded, resized) by what is drawn in them."""

from __future__ import annotations

import warnings
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from anomalib_clipad.images.picture import Picture

_SIDE = 32
_ALIKE = 0.97
_CONTRAST = 0.5
_MOST_NAMES = 5


class Identity(NamedTuple):
    """What is kept of an image to know it again.

    Attributes:
        name: What it is called in messages, such as its path.
        digest: Of its pixels in 8 bits and their shape; equal pixels have equal digests, however they came in.
        thumbnail: 32 x 32 levels of grey, each the mean of an area, row by row.
    """

    name: str
    digest: str
    thumbnail: bytes


class PlainIdentity(TypedDict):
    """An identity as JSON has it; the thumbnail in base64."""

    name: str
    digest: str
    thumbnail: str


def identify(picture: Picture, name: str) -> Identity:
    """What to know a picture by.

    Args:
        picture: The picture.
        name: What it is called in messages.
    """
    from PIL import Image

    shown = np.ascontiguousarray(picture.shown)
    digest = blake2b(repr(shown.shape).encode(), digest_size=16)
    digest.update(shown.data)
    grey = np.asarray(Image.fromarray(shown).convert("L"), np.float32)
    small = _areas(grey.shape[0]) @ grey @ _areas(grey.shape[1]).T
    return Identity(name, digest.hexdigest(), small.round().astype(np.uint8).tobytes())


def _areas(size: int) -> NDArray[np.float32]:
    """Means of equal areas along an axis, pixels shared in parts (32, size); Pillow's box filter takes whole ones."""
    edges = np.linspace(0, size, _SIDE + 1)[:, None]
    covered = np.clip(edges - np.arange(size), 0, 1)
    return (np.diff(covered, axis=0) * (_SIDE / size)).astype(np.float32)


def to_plain(identities: Iterable[Identity]) -> list[PlainIdentity]:
    """Identities for JSON."""
    return [
        {"name": one.name, "digest": one.digest, "thumbnail": b64encode(one.thumbnail).decode("ascii")}
        for one in identities
    ]


def from_plain(data: Iterable[PlainIdentity]) -> list[Identity]:
    """Identities from JSON.

    Raises:
        ValueError: If they are damaged.
    """
    try:
        identities = [
            Identity(str(one["name"]), str(one["digest"]), b64decode(one["thumbnail"], validate=True)) for one in data
        ]
    except (KeyError, TypeError, ValueError) as error:
        msg = f"What images are known by is damaged ({error!r}). Write the file again."
        raise ValueError(msg) from error
    wrong = [one.name for one in identities if len(one.thumbnail) != _SIDE**2]
    if wrong:
        msg = f"What the image {wrong[0]} is known by is damaged: its thumbnail is cut. Write the file again."
        raise ValueError(msg)
    return identities


def distinct(identities: Sequence[Identity]) -> list[int]:
    """Which images to use so that exact copies count once; warns, naming copies and near-copies.

    Returns:
        The first image of each set of copies, as rows in order.
    """
    first: dict[str, int] = {}
    copies = []
    for row, one in enumerate(identities):
        original = first.setdefault(one.digest, row)
        if original != row:
            copies.append(f"{one.name} is a copy of {identities[original].name}")
    rows = list(first.values())
    if copies:
        warnings.warn(f"Copies of an image count once: {_listed(copies)}.", UserWarning, stacklevel=2)
    patterns = _patterns([identities[row] for row in rows])
    pairs = np.argwhere(np.triu(patterns @ patterns.T > _ALIKE, 1))
    _warn_of_likeness([(identities[rows[second]], identities[rows[first]]) for first, second in pairs], stacklevel=3)
    return rows


def check_apart(references: Sequence[Identity], calibration: Sequence[Identity]) -> None:
    """Check that no image is compared with itself; warns where one looks like another.

    Args:
        references: Images that are compared with.
        calibration: Images that set the threshold.

    Raises:
        ValueError: If an image is in both.
    """
    known = {one.digest: one for one in references}
    for one in calibration:
        if one.digest in known:
            msg = (
                f"The calibration image {one.name} is also a reference ({known[one.digest].name}). It would be "
                "compared with itself: use each image once."
            )
            raise ValueError(msg)
    pairs = np.argwhere(_patterns(calibration) @ _patterns(references).T > _ALIKE)
    _warn_of_likeness([(calibration[row], references[column]) for row, column in pairs], stacklevel=3)


class Known:
    """Images that a model has seen, to tell whether one that is inspected is among them.

    Args:
        identities: The images.
    """

    def __init__(self, identities: Iterable[Identity]) -> None:
        self._identities = list(identities)
        self._rows = {one.digest: row for row, one in reversed(list(enumerate(self._identities)))}
        self._patterns = _patterns(self._identities)

    def find(self, identity: Identity) -> Identity | None:
        """The image that it is a copy or near-copy of, if there is one."""
        row = self._rows.get(identity.digest)
        if row is None and self._identities:
            likeness = self._patterns @ _patterns([identity])[0]
            best = int(likeness.argmax())
            row = best if likeness[best] > _ALIKE else None
        return None if row is None else self._identities[row]


def _patterns(identities: Sequence[Identity]) -> NDArray[np.float32]:
    """What is drawn in thumbnails, without their light: rows of length 1, or 0 where nothing is drawn.

    Returns:
        (n, 1024), whose products are correlations.
    """
    thumbnails = [np.frombuffer(one.thumbnail, np.uint8) for one in identities]
    levels = np.array(thumbnails, np.float32).reshape(-1, _SIDE, _SIDE)
    padded = np.pad(levels, ((0, 0), (1, 1), (1, 1)), "edge")
    blurred = sum(padded[:, row : row + _SIDE, column : column + _SIDE] for row in range(3) for column in range(3)) / 9
    fine = (levels - blurred).reshape(-1, _SIDE**2)
    fine -= fine.mean(axis=1, keepdims=True)
    length = np.linalg.norm(fine, axis=1, keepdims=True)
    drawn = length > _CONTRAST * _SIDE
    return np.where(drawn, fine / np.where(drawn, length, 1), 0).astype(np.float32)


def _warn_of_likeness(pairs: Sequence[tuple[Identity, Identity]], stacklevel: int) -> None:
    if pairs:
        named = _listed([f"{one.name} looks like {other.name}" for one, other in pairs])
        msg = f"Images may be copies that were saved again or resized: {named}. Use each photograph once."
        warnings.warn(msg, UserWarning, stacklevel=stacklevel)


def _listed(sentences: Sequence[str]) -> str:
    more = len(sentences) - _MOST_NAMES
    return ", ".join(sentences[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
