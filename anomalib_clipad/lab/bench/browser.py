"""A headless Chromium, driven over a pipe with the Chrome DevTools Protocol: for measurements, pictures and tests."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable
from types import TracebackType
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_SWITCHES = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--allow-pre-commit-input",
)  # fmt: skip
_LAUNCH = """
import os, sys
for source, target in zip(map(int, sys.argv[1:3]), (3, 4)):
    os.dup2(source, target)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads commands from file descriptor 3 and writes answers to 4."""
_KEYS = {
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Escape": 27, "Home": 36, "End": 35,
}  # fmt: skip


def find_chromium() -> str | None:
    """Where a Chromium is installed, if one is."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Tab:
    """A page in a browser.

    Attributes:
        events: What the browser has told of it: method and parameters.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.events: list[tuple[str, dict[str, Any]]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and wait for its answer."""
        return self._browser.call(method, self._session, **parameters)

    def go(self, address: str) -> None:
        """Load an address and wait until this load, no earlier one, has ended and is painted."""
        self.events.clear()
        self.call("Page.bringToFront")  # behind another tab nothing is painted
        loader = self.call("Page.navigate", url=address)["loaderId"]
        ended = {"name": "load", "loaderId": loader}
        self._browser.wait(lambda: any(ended.items() <= given.items() for _, given in self.events), address)
        self.settle()

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression; a promise is awaited.

        Raises:
            RuntimeError: If the expression throws.
        """
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = 60) -> None:
        """Wait until a JavaScript expression is true.

        Raises:
            TimeoutError: If it does not become so in time.
        """
        end = time.monotonic() + seconds
        while not self.evaluate(condition):
            if time.monotonic() > end:
                msg = f"'{condition}' did not become true within {seconds:g} s."
                raise TimeoutError(msg)
            time.sleep(0.02)

    def drop(self, selector: str, *files: str) -> None:
        """Drop files in the middle of an element, as from the desktop."""
        x, y = self._middle(selector)
        data = {"items": [], "files": files, "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def settle(self) -> None:
        """Wait until what is due has been painted."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def click(self, selector: str, place: int = 0) -> None:
        """Click the middle of an element with the mouse."""
        x, y = self._middle(selector, place)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def _middle(self, selector: str, place: int = 0) -> tuple[float, float]:
        x, y = self.evaluate(
            f"(() => {{ const found = document.querySelectorAll({json.dumps(selector)})[{place}];"
            "found.scrollIntoView({block: 'nearest'}); const box = found.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        return x, y

    def press(self, key: str) -> None:
        """Press a key: a character or a name such as ``ArrowLeft``."""
        code = _KEYS.get(key, ord(key[0].upper()))
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        options = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **options)
        self.call("Input.dispatchKeyEvent", type="keyUp", **options)
        self.settle()

    def write(self, text: str) -> None:
        """Type text where the focus is."""
        self.call("Input.insertText", text=text)
        self.settle()

    def resize(self, width: int, height: int) -> None:
        """Give the window a size in pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.settle()

    def screenshot(self) -> bytes:
        """What the window shows, as PNG."""
        return b64decode(self.call("Page.captureScreenshot", format="png")["data"])


class Browser:
    """A headless Chromium with a profile of its own; a context manager.

    Args:
        seconds: How long an answer may take.

    Raises:
        FileNotFoundError: If no Chromium is installed.
        TimeoutError: If an answer takes longer.
    """

    def __init__(self, seconds: float = 60) -> None:
        found = find_chromium()
        if found is None:
            msg = f"No Chromium was found (looked for {', '.join(_NAMES)}). Install one, such as Debian's 'chromium'."
            raise FileNotFoundError(msg)
        self._seconds = seconds
        self._tabs: dict[str, Tab] = {}
        self._answers: dict[int, dict[str, Any]] = {}
        self._number = 0
        self._rest = b""
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        child_read, self._write = _pipe()
        self._read, child_write = _pipe()
        switches = [*_SWITCHES, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        command = [found, *switches, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _LAUNCH, str(child_read), str(child_write), *command],
            pass_fds=(child_read, child_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_read)
        os.close(child_write)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the browser and forget its profile."""
        try:
            self.call("Browser.close")
            self._process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def tab(self, width: int = 1280, height: int = 800) -> Tab:
        """A new, empty page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        self._tabs[session] = tab
        tab.resize(width, height)
        return tab

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol and wait for its answer.

        Raises:
            RuntimeError: If the browser refuses it.
        """
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        self.wait(lambda: number in self._answers, method)
        answer = self._answers.pop(number)
        if "error" in answer:
            msg = f"{method}: {answer['error']}"
            raise RuntimeError(msg)
        result: dict[str, Any] = answer["result"]
        return result

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Receive what the browser says until a condition holds."""
        end = time.monotonic() + self._seconds
        while not done():
            ready, _, _ = select.select([self._read], [], [], max(0.0, min(0.1, end - time.monotonic())))
            if ready:
                self._receive()
            elif time.monotonic() > end:
                msg = f"Chromium gave no answer to '{what}' within {self._seconds:g} s."
                raise TimeoutError(msg)

    def _receive(self) -> None:
        chunk = os.read(self._read, 1 << 20)
        if not chunk:
            msg = "Chromium has ended."
            raise BrokenPipeError(msg)
        *messages, self._rest = (self._rest + chunk).split(b"\0")
        for text in messages:
            message = json.loads(text)
            if "id" in message:
                self._answers[message["id"]] = message
            elif (tab := self._tabs.get(message.get("sessionId", ""))) is not None:
                tab.events.append((message["method"], message["params"]))


def _pipe() -> tuple[int, int]:
    """A pipe whose ends do not collide with the descriptors that Chromium uses."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]
