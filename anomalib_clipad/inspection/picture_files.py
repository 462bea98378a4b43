"""Masks, overlays and maps as files, each whole or not there at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from anomalib_clipad.storage import atomic_folder

from .names import PICTURE_SUFFIXES
from .page import heat_map, thumbnail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .finding import Finding

Overlays = Literal["defective", "all", "none"]
Maps = Literal["none", "png", "npy"]
THUMBNAILS, HEAT_MAPS = ".thumbnails", ".heat_maps"
"""Small images for the page, which is made at the end, and the same under their heat maps."""
FOLDERS = ("masks", "overlays", "maps", THUMBNAILS, HEAT_MAPS)
_LARGEST_JPEG = 65500  # pixels a side


@dataclass(frozen=True)
class PictureFiles:
    """Which pictures are written.

    Attributes:
        folder: Output folder, above ``masks``, ``overlays``, ``maps`` and thumbnails.
        overlays: Of which images.
        masks: Whether masks are.
        maps: As what.
        thumbnails: Whether thumbnails are, and the same under their heat maps.
    """

    folder: Path
    overlays: Overlays
    masks: bool
    maps: Maps
    thumbnails: bool

    def wanted(self, finding: Finding) -> bool:
        """Whether anything is written for a finding."""
        return self.masks or self.maps != "none" or self.thumbnails or self._has_overlay(finding)

    def write(self, finding: Finding, name: str) -> None:
        """Write what is wanted.

        Args:
            finding: What was found.
            name: Relative path without suffix.
        """
        for kind, suffix, save in self._pictures(finding):
            target = self.folder / kind / f"{name}{suffix}"
            with atomic_folder(target.parent) as folder:
                save(folder / target.name)

    def _has_overlay(self, finding: Finding) -> bool:
        return self.overlays == "all" or (self.overlays == "defective" and finding.label)

    def _pictures(self, finding: Finding) -> Iterator[tuple[str, str, Callable[[Path], object]]]:
        """Folder, suffix and writer of each picture of a finding."""
        if self.thumbnails:
            yield THUMBNAILS, ".jpg", lambda path: path.write_bytes(thumbnail(finding.image))
            yield HEAT_MAPS, ".jpg", lambda path: path.write_bytes(heat_map(finding))
        if self.masks:
            yield "masks", ".png", partial(_write_png, grey=finding.mask.astype(np.uint8) * np.uint8(255))
        if self._has_overlay(finding):
            overlay = finding.overlay()
            yield (
                "overlays",
                ".jpg" if max(overlay.size) <= _LARGEST_JPEG else ".png",
                partial(overlay.save, quality=90),
            )
        if self.maps == "npy":
            yield "maps", ".npy", partial(np.save, arr=np.asarray(finding.map, np.float32))
        elif self.maps == "png":
            levels = np.nan_to_num(finding.map, nan=1.0).clip(0, 1)  # what is no number is defective
            yield "maps", ".png", partial(_write_png, grey=(levels * np.float32(65535)).round().astype(np.uint16))


def _write_png(path: Path, grey: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """By OpenCV, which takes a third of Pillow's time; it tells of no full disk, so Python writes."""
    path.write_bytes(cv2.imencode(".png", grey)[1].tobytes())


def remove_pictures(folder: Path, names: Iterable[str]) -> set[Path]:
    """Remove the pictures of these names, and say in which folders they would have been."""
    parents: set[Path] = set()
    for name in names:
        for kind in FOLDERS:
            place = folder / kind / name
            parents.add(place.parent)
            for suffix in PICTURE_SUFFIXES:
                with suppress(FileNotFoundError):
                    place.with_name(place.name + suffix).unlink()
    return parents


def tidy(folder: Path, parents: Iterable[Path]) -> None:
    """Remove what is unfinished in these folders, and those that are empty then, up to the output folder."""
    for parent in sorted(parents, reverse=True):
        remove_unfinished(parent)
        for emptied in (parent, *parent.parents):
            if emptied == folder:
                break
            with suppress(OSError):  # it is not empty, or not there
                emptied.rmdir()


def remove_unfinished(folder: Path) -> None:
    """Remove what ``atomic_folder`` leaves in a folder when its process is killed."""
    for left in folder.glob(".unfinished-*"):
        shutil.rmtree(left, ignore_errors=True)
