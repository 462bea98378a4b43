"""Names of written files: below the output folder whatever an image is called, and no two alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from hashlib import sha256
from pathlib import PurePath, PurePosixPath, PureWindowsPath

PICTURE_SUFFIXES = (".jpg", ".npy", ".png")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\ud800-\udfff]')
"""What no file system of Windows takes, control characters, and bytes that are no text."""
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_LONGEST_PART, _LONGEST = 180, 900
"""In bytes; file systems take 255, and paths 4096 with the folders above."""


class Names:
    """Hands out names, each once.

    Args:
        taken: Names that were handed out before.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._times = dict.fromkeys(map(_key, taken), 1)

    def claim(self, name: PurePath) -> str:
        """A name for what is written for an image: as ``safe_name``, with a number where another image has it.

        Names that differ only in case, or in how accents are encoded, count as alike: they are on some file systems.

        >>> names = Names()
        >>> names.claim(PurePosixPath("a/crack.png")), names.claim(PurePosixPath("A/Crack.JPG"))
        ('a/crack', 'A/Crack-2')
        """
        wanted = safe_name(name)
        claimed = wanted
        while _key(claimed) in self._times:
            self._times[_key(wanted)] += 1
            claimed = f"{wanted}-{self._times[_key(wanted)]}"
        self._times[_key(claimed)] = 1
        return claimed


def safe_name(name: PurePath) -> str:
    r"""A relative path, with ``/``, without the image's suffix, that every file system takes.

    >>> safe_name(PurePosixPath("good/000.png"))
    'good/000'
    >>> safe_name(PurePosixPath("../../etc/C:\\x.png"))
    'etc/C__x'
    """
    anchor = {name.anchor, "..", "."} | ({name.drive} if isinstance(name, PureWindowsPath) else set())
    *folders, last = [part for part in name.parts if part not in anchor] or ["_"]
    parts = [_safe_folder(part) for part in folders]
    stem = _safe_part(PurePosixPath(last).stem if last.strip(".") else last)
    if len("/".join([*parts, stem]).encode()) > _LONGEST:
        parts = [_digest("/".join(folders))]
    return "/".join([*parts, stem])


def _safe_folder(part: str) -> str:
    """A folder never has the name of a picture: ``x.png`` may be both beside the other."""
    safe = _safe_part(part)
    return f"{safe}_" if safe.lower().endswith(PICTURE_SUFFIXES) else safe


def _safe_part(part: str) -> str:
    safe = _FORBIDDEN.sub("_", part).rstrip(". ")
    if not safe or safe.startswith(".") or _DEVICE.match(safe):
        safe = f"_{safe}"
    if len(safe.encode()) > _LONGEST_PART:
        safe = f"{safe.encode()[:_LONGEST_PART].decode(errors='ignore').rstrip('. ')}-{_digest(part)}"
    return safe


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
