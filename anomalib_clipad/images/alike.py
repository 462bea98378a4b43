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
# Measured on the details of thumbnails (3 x 3 means taken off), of 60 photographs of hazelnuts and of 26 to 150
# pictures of each of 19 categories of generated parts. Of different pictures the most alike correlate by .976
# (corduroy), .96 (brackets) and .95 (meshes); hazelnuts by less than .68. Copies saved as JPEG of quality 50, or
# resized by half, to .7, to 1.5 or to other proportions, correlate by more than .985 where their contrast is 2.8
# levels or more; by .978 at 2.7 levels (carpet) and .78 at 0.9 (wood), as thumbnails have whole levels and JPEG adds
# noise. So .985 of what is no noise has to agree: all these copies are found, and no two different pictures. Tried on
# 66 other pictures of each category: 0 of 40,755 pairs called copies, 0 of 2,216 copies missed. Copies halved and saved
# with quality 50 at once are missed in 7 of 277, those of every other pixel without a filter in 72 of 277.
_ALIKE = 0.985
_NOISE = 0.5
"""Variance of what saving again changes in a thumbnail's details, in levels."""
_FLAT = 0.5
"""Standard deviation of details, in levels, below which nothing is drawn."""
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

    shown = picture.shown
    grey = np.asarray(Image.fromarray(shown).convert("L"), np.float32)
    small = _areas(grey.shape[0]) @ grey @ _areas(grey.shape[1]).T
    return Identity(name, digest_of_pixels(shown), small.round().astype(np.uint8).tobytes())


def digest_of_pixels(shown: NDArray[np.uint8]) -> str:
    """The digest of ``Identity``, of an image as a viewer shows it (H, W, 3)."""
    digest = blake2b(repr(shown.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(shown).data)
    return digest.hexdigest()


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
    details = _Details([identities[row] for row in rows])
    originals = [identities[row] for row in rows]
    _warn_of_likeness(originals, originals, np.tril(details.like(details), -1))
    return rows


def check_apart(
    references: Sequence[Identity],
    calibration: Sequence[Identity],
    kinds: tuple[str, str] = ("reference", "calibration image"),
) -> None:
    """Check that no image is compared with itself; warns where one looks like another.

    Args:
        references: Images that are compared with.
        calibration: Images that set the threshold.
        kinds: What the former and the latter are called, where they are others.

    Raises:
        ValueError: If an image is in both.
    """
    known = {one.digest: one for one in references}
    for one in calibration:
        if one.digest in known:
            msg = (
                f"The {kinds[1]} {one.name} is also a {kinds[0]} ({known[one.digest].name}). It would be "
                "compared with itself: use each image once."
            )
            raise ValueError(msg)
    _warn_of_likeness(calibration, references, _Details(calibration).like(_Details(references)))


class Known:
    """Images that a model has seen, to tell whether one that is inspected is among them.

    Args:
        identities: The images.
    """

    def __init__(self, identities: Iterable[Identity]) -> None:
        self._identities = list(identities)
        self._rows = {one.digest: row for row, one in reversed(list(enumerate(self._identities)))}
        self._details = _Details(self._identities)

    def find(self, identity: Identity) -> Identity | None:
        """The image that it is a copy or near-copy of, if there is one."""
        row = self._rows.get(identity.digest)
        if row is None:
            alike = self._details.like(_Details([identity]))[:, 0]
            row = int(alike.argmax()) if alike.any() else None
        return None if row is None else self._identities[row]


class _Details:
    """What is drawn in thumbnails, without their light.

    Attributes:
        patterns: Details of unit length, so that products are correlations; 0 where nothing is drawn (n, 1024).
        contrast: Their standard deviations, in levels (n,).
    """

    def __init__(self, identities: Sequence[Identity]) -> None:
        thumbnails = [np.frombuffer(one.thumbnail, np.uint8) for one in identities]
        levels = np.array(thumbnails, np.float32).reshape(-1, _SIDE, _SIDE)
        padded = np.pad(levels, ((0, 0), (1, 1), (1, 1)), "edge")
        blurred = sum(padded[:, y : y + _SIDE, x : x + _SIDE] for y in range(3) for x in range(3)) / 9
        details = (levels - blurred).reshape(-1, _SIDE**2)
        details -= details.mean(axis=1, keepdims=True)
        self.contrast = details.std(axis=1)
        drawn = (self.contrast > _FLAT)[:, None]
        length = np.where(drawn, np.linalg.norm(details, axis=1, keepdims=True), 1)
        self.patterns = np.where(drawn, details / length, 0)

    def like(self, others: _Details) -> NDArray[np.bool_]:
        """Which are near-copies of which others (n, m)."""
        signal = self.contrast[:, None] * others.contrast
        found: NDArray[np.bool_] = self.patterns @ others.patterns.T > _ALIKE * signal / (signal + _NOISE)
        return found


def _warn_of_likeness(images: Sequence[Identity], others: Sequence[Identity], alike: NDArray[np.bool_]) -> None:
    """Name each image that looks like another, with the first such."""
    pairs = [(image, others[int(row.argmax())]) for image, row in zip(images, alike, strict=True) if row.any()]
    named = [f"{image.name} looks like {other.name}" for image, other in pairs]
    if named:
        msg = f"Images may be copies that were saved again or resized: {_listed(named)}. Use each photograph once."
        warnings.warn(msg, UserWarning, stacklevel=3)


def _listed(sentences: Sequence[str]) -> str:
    more = len(sentences) - _MOST_NAMES
    return ", ".join(sentences[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
