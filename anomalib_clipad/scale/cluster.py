"""A Ray cluster: one that is there, or one of this machine alone."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anomalib_clipad.extras import require

_FREE = 2
"""CPUs that a cluster of this machine has beside those of the workers: reading and writing need some too."""
_PATIENCE = 10
"""Seconds that a cluster has to answer."""


@contextmanager
def cluster(address: str | None = None, workers: int | None = None) -> Iterator[int]:
    """Connect to a cluster, unless that is done already, and leave it at the end.

    Args:
        address: ``auto`` for the cluster that this machine belongs to, ``ray://host:10001``, or ``host:6379``; by
            default that of ``RAY_ADDRESS``, as in a job that was submitted, or one of this machine alone.
        workers: How many CPUs of this machine are to work; all by default. Of no matter with an address.

    Yields:
        How many workers: as given, or as many as the cluster has CPUs, but for two.

    Raises:
        ModuleNotFoundError: If Ray is not installed; the message names the extra that brings it.
        ConnectionError: If the cluster cannot be reached.
    """
    require("Work on many machines", "scale", "ray")
    import ray

    own = not ray.is_initialized()
    if own:
        address = address or os.environ.get("RAY_ADDRESS")
        given: dict[str, Any] = {"address": address}
        if address is None:
            given = {"num_cpus": (workers or os.cpu_count() or 1) + _FREE, "include_dashboard": False}
        try:
            _knock(address)
            ray.init(**given, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
            msg = f"The Ray cluster {address!r} cannot be reached ({reason}). Start it, or leave out the address."
            raise ConnectionError(msg) from error
    try:
        yield workers or max(int(ray.cluster_resources().get("CPU", 1)) - _FREE, 1)
    finally:
        if own:
            ray.shutdown()


def _knock(address: str | None) -> None:
    """Try whether anything answers at an address; Ray itself would end the whole process."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
