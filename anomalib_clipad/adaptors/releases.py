"""Files that authors have released: downloaded once, recognised by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from anomalib_clipad.backbones.backbone import WeightsUnavailableError
from anomalib_clipad.storage import atomic_folder, cache_folder

_TIMEOUT = 60


class Release(NamedTuple):
    """A file of the authors.

    Attributes:
        address: Of the folder it lies in.
        file: Its name.
        blob_id: Its git blob id, by which it is recognised.
    """

    address: str
    file: str
    blob_id: str


def fetch(release: Release, what: str) -> Path:
    """The file, downloaded once into the cache and verified each time before anything reads it.

    Args:
        release: The file.
        what: What it is called in a message.

    Raises:
        ValueError: If the file in the cache is not the released one, or others can write to the cache.
        WeightsUnavailableError: If it is not in the cache and cannot be downloaded.
    """
    path = cache_folder("adapters", create=False) / release.file
    url = f"{release.address}/{release.file}"
    if path.exists():
        if blob_id(path.read_bytes()) != release.blob_id:
            msg = f"{path} is not the file that was released (git blob {release.blob_id}). Delete it and try again."
            raise ValueError(msg)
        return path
    try:
        with urlopen(url, timeout=_TIMEOUT) as response:
            content = response.read()
    except OSError as error:
        msg = (
            f"{what} could not be downloaded from {url}: {error}. Without a network, put that file at {path}, or pass "
            "the path of your own layers as `adapter`."
        )
        raise WeightsUnavailableError(msg) from error
    if blob_id(content) != release.blob_id:
        msg = f"What {url} gave is not the released file (git blob {release.blob_id}); nothing was kept of it."
        raise ValueError(msg)
    with atomic_folder(cache_folder("adapters")) as folder:
        (folder / path.name).write_bytes(content)
    return path


def blob_id(content: bytes) -> str:
    """The id git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
