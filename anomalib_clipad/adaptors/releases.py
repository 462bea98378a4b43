"""Files that authors have released: downloaded once, recognised by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
        place: Folder of its own in the cache, where several files belong together.
    """

    address: str
    file: str
    blob_id: str
    place: str = ""


def fetch(releases: Sequence[Release], what: str) -> list[Path]:
    """Files, downloaded once into the cache and verified each time before anything reads them.

    Args:
        releases: The files.
        what: What they are called in a message.

    Raises:
        ValueError: If a file in the cache is not the released one, or others can write to the cache.
        WeightsUnavailableError: If one is not in the cache and cannot be downloaded.
    """
    try:
        return [_fetch(release) for release in releases]
    except OSError as error:
        places = "; ".join(f"{_url(one)} at {_folder(one, create=False) / one.file}" for one in releases)
        msg = (
            f"{what} could not be downloaded: {error}. Without a network, put {places}, or pass the path of your own "
            "layers as `adapter`."
        )
        raise WeightsUnavailableError(msg) from error


def _fetch(release: Release) -> Path:
    path, url = _folder(release, create=False) / release.file, _url(release)
    if path.exists():
        if blob_id(path.read_bytes()) != release.blob_id:
            msg = f"{path} is not the file that was released (git blob {release.blob_id}). Delete it and try again."
            raise ValueError(msg)
        return path
    with urlopen(url, timeout=_TIMEOUT) as response:
        content = response.read()
    if blob_id(content) != release.blob_id:
        msg = f"What {url} gave is not the released file (git blob {release.blob_id}); nothing was kept of it."
        raise ValueError(msg)
    with atomic_folder(_folder(release, create=True)) as folder:
        (folder / path.name).write_bytes(content)
    return path


def _url(release: Release) -> str:
    return f"{release.address}/{release.file}"


def _folder(release: Release, create: bool) -> Path:
    """Where it lies in the cache; each folder on the way is one that others cannot write to."""
    folder = cache_folder("adapters", create=create)
    return cache_folder(f"adapters/{release.place}", create=create) if release.place else folder


def blob_id(content: bytes) -> str:
    """The id git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
