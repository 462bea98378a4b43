"""Downloads that end soon where there is no network, in one error that says how to go on without it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from ssl import SSLError
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import open_clip
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import EntryNotFoundError

from .backbone import BUNDLED, WeightsUnavailableError
from .conventions import HUB_CONFIG

HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_PATIENCE = 5.0
"""Seconds in which a server has to give a first answer."""


def download_tag(name: str, tag: str, known: Mapping[str, Any]) -> Path:
    """The weights file of an open_clip tag, from the cache or its server.

    Args:
        name: open_clip model name.
        tag: A tag of it.
        known: What open_clip knows of the tag, see ``trained_as``.

    Raises:
        WeightsUnavailableError: If it is not in the cache and cannot be downloaded.
    """
    url, hub = known.get("url"), known.get("hf_hub")
    prefers_hub = "prefer_hf_hub" in inspect.signature(open_clip.download_pretrained).parameters  # since 2.30
    from_hub = bool(hub and (prefers_hub or not url))
    place = url or f"{constants.ENDPOINT}/{str(hub).rstrip('/')}"
    advice = (
        f"To run without a network, download that file on another machine and pass pretrained='{tag}:/path/of/it', or "
        f"use backbone='{BUNDLED}', which is part of this package."
    )
    with _downloading(f"The weights '{tag}' of {name}", place, from_hub, advice) as offline:
        if offline and not from_hub and not Path("~/.cache/clip", Path(place).name).expanduser().is_file():
            raise ConnectionError  # open_clip would wait for that server
        return Path(open_clip.download_pretrained(dict(known)))


def download_folder(repository: str) -> tuple[Path, Path]:
    """The configuration and the weights of a repository on the Hugging Face hub, from the cache or the hub.

    Raises:
        WeightsUnavailableError: If they are not in the cache and cannot be downloaded.
    """
    what = f"The model '{repository}' ({HUB_CONFIG} and {' or '.join(HUB_WEIGHTS)})"
    advice = (
        "To run without a network, put both files into a folder and use backbone='local-dir:/that/folder', or use "
        f"backbone='{BUNDLED}', which is part of this package."
    )
    with _downloading(what, f"{constants.ENDPOINT}/{repository}", True, advice):
        config = hf_hub_download(repository, HUB_CONFIG)
        try:
            weights = hf_hub_download(repository, HUB_WEIGHTS[0])
        except EntryNotFoundError:  # an older repository holds only the second format
            weights = hf_hub_download(repository, HUB_WEIGHTS[1])
    return Path(config), Path(weights)


@contextmanager
def _downloading(what: str, place: str, from_hub: bool, advice: str) -> Iterator[bool]:
    """Ask the server once before the hub's client retries for a minute, and turn every error into one.

    Yields:
        Whether only the cache can answer.
    """
    was_offline = constants.HF_HUB_OFFLINE
    server = "{0.scheme}://{0.netloc}".format(urlsplit(constants.ENDPOINT if from_hub else place))
    offline = (from_hub and was_offline) or not _reachable(server)
    constants.HF_HUB_OFFLINE = was_offline or offline
    try:
        yield offline
    except Exception as error:  # urllib, requests, httpx and the hub's client each raise their own
        reason = f"{server} does not answer" if offline else f"{type(error).__name__}: {error}"
        if from_hub and was_offline:
            reason = "HF_HUB_OFFLINE is set"
        msg = f"{what} could not be downloaded from {place} ({reason}). {advice}"
        raise WeightsUnavailableError(msg) from (None if offline else error)
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def _reachable(server: str, patience: float = _PATIENCE) -> bool:
    """Whether a server answers in time, name look-up included, which no timeout of Python's limits."""
    answers = []

    def ask() -> None:
        try:
            urlopen(Request(server, method="HEAD"), timeout=patience).close()
        except HTTPError:
            pass  # an answer
        except Exception as error:  # whatever a name server, a proxy or the server leads to
            if not isinstance(getattr(error, "reason", error), SSLError):  # the hub's client has its own certificates
                return
        answers.append(server)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    return bool(answers)
