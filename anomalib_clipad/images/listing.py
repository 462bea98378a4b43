"""The image files of a folder."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".pgm", ".ppm"})
"""What image files end with."""


def files_in(folder: Path) -> list[Path]:
    """The image files of a folder and its subfolders, in the order of their names.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not folder.is_dir():
        msg = f"There is no folder {folder}."
        raise FileNotFoundError(msg)
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
