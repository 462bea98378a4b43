"""`anomalib-clipad playground`: a page to try wordings, normal images and thresholds on, served by this machine."""

from __future__ import annotations

import threading
import webbrowser
from typing import Any

from anomalib_clipad.playground.app import Limits, require_gradio, served
from anomalib_clipad.playground.session import Session
from anomalib_clipad.settings import Settings


def playground(
    settings: dict[str, Any] | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = False,
    max_megabytes: float = 20,
    max_pixels: int = 40_000_000,
    debug: bool = False,  # noqa: ARG001  # read by the command line
) -> None:
    """Serve a page to try things on, until interrupted.

    Args:
        settings: Those by which a model is built.
        host: Address to listen at; 0.0.0.0 lets every machine of the network in, and nobody is asked for a password.
        port: By default a free one from 7860 on.
        open_browser: Open it in a browser.
        max_megabytes: Larger files are refused.
        max_pixels: Larger images are refused.
        debug: Show where an error comes from.
    """
    require_gradio()
    session = Session(**{"backbone": Settings.backbone, **(settings or {})})
    with served(session, host, port, Limits(max_megabytes, max_pixels)) as address:
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if open_browser:
            webbrowser.open(address)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()
