"""Where this package keeps files between runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

DIRECTORY_VARIABLE = "ANOMALIB_CLIPAD_CACHE"


def cache_directory() -> Path:
    """Where downloads, embeddings and pictures are: ``$ANOMALIB_CLIPAD_CACHE`` or the platform's user cache."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    return Path(given).expanduser() if given else user_cache_path("anomalib_clipad", appauthor=False)


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """A folder for files that belong in ``target``: they move there when all went well, and are gone otherwise."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".unfinished-") as name:
        folder = Path(name)
        mode = _usual_mode(folder)
        yield folder
        for file in folder.iterdir():
            file.chmod(mode)
            file.replace(target / file.name)


def _usual_mode(folder: Path) -> int:
    """Permissions of a file that is simply opened, by the umask, whatever a library that writes files makes of them."""
    probe = folder / "probe"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    return mode
