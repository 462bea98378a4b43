"""Where this package keeps files between runs."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

DIRECTORY_VARIABLE = "ANOMALIB_CLIPAD_CACHE"


def cache_directory() -> Path:
    """Where downloads, embeddings and pictures are: ``$ANOMALIB_CLIPAD_CACHE`` or the platform's user cache."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    return Path(given).expanduser() if given else user_cache_path("anomalib_clipad", appauthor=False)
