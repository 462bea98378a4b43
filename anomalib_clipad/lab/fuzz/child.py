"""`anomalib-clipad inspect` in a process of its own that is killed, waits, or finds its disk full, at some event."""

from __future__ import annotations

import errno
import importlib
import json
import os
import random
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from anomalib_clipad.inspection import ahead, inspector, lines
from anomalib_clipad.inspection import run as runs
from anomalib_clipad.tools.inspect import inspect

from .stand_in import AtWhim, Grey

_LONGEST = 60.0
"""Seconds after which a run hangs."""
_GROWING = {"open", "os.mkdir", "os.link"}
"""What a full disk does not allow."""
_CHANGES = {*_GROWING, "os.rename", "os.remove", "os.rmdir"}
_NEEDED = (
    *("anomalib_clipad.inspection.coco", "anomalib_clipad.inspection.drift_log", "anomalib_clipad.inspection.page"),
    *("PIL.PngImagePlugin", "PIL.JpegImagePlugin", "crepes.martingales", "pyarrow.csv", "pyarrow.parquet"),
    *("rich.console", "rich.table", "tqdm"),
)
"""What a run imports, so that this is done once."""


class Trouble(NamedTuple):
    """What happens to a run.

    Attributes:
        kind: The process is killed, it waits until it is told to go on, or there is no more space from then on.
        event: When: at which change of a name on disk (before it), or of a file of lines (before, in its middle, after
            it); of a pause only the latter count, since the run has its folder then.
    """

    kind: Literal["kill", "pause", "full"]
    event: int


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        kind: It is ``done``, ``refused`` with a message, ``killed``, or ``broken`` by an error that no user can mend.
        message: Of the error, with its type.
        status: Exit status, where it is done.
    """

    kind: Literal["done", "refused", "killed", "broken", "paused"]
    message: str = ""
    status: int = 0


class Child:
    """A run that has been started.

    Args:
        call: Arguments of ``inspect``.
        folder: Where it is called.
        seed: Of what threads would leave to chance.
        trouble: What happens to it.
    """

    def __init__(self, call: Mapping[str, Any], folder: Path, seed: int, trouble: Trouble | None = None) -> None:
        for name in _NEEDED:
            importlib.import_module(name)
        self._told, tell = os.pipe()
        wait, self._go_on = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of threads, and the child takes none of them up
            self._process = os.fork()
        if not self._process:
            os.close(self._told)
            os.close(self._go_on)
            _run(call, folder, seed, _Events(trouble, tell, wait))
        os.close(tell)
        os.close(wait)

    def __enter__(self) -> Child:
        """Itself; it starts when its outcome is asked for."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process, if it has not ended."""
        os.close(self._told)
        os.close(self._go_on)
        os.waitpid(self._process, 0)

    def outcome(self) -> Outcome:
        """How the run has ended, or that it waits: then it goes on when this is asked again."""
        os.write(self._go_on, b".")
        told, end = b"", time.monotonic() + _LONGEST
        while not told.endswith(b"\n"):
            if not select.select([self._told], [], [], max(0.0, end - time.monotonic()))[0]:
                os.kill(self._process, signal.SIGKILL)
                told = json.dumps(["broken", f"It has not ended after {_LONGEST:.0f} s."]).encode() + b"\n"
            elif part := os.read(self._told, 1 << 16):
                told += part
            else:
                told = b'["killed"]\n'
        return Outcome(*json.loads(told))


class _Events:
    """Counts what changes on disk, and strikes at one of these changes."""

    def __init__(self, trouble: Trouble | None, tell: int, wait: int) -> None:
        self._trouble, self._tell, self._wait = trouble, tell, wait
        self._count = 0

    def wait(self) -> None:
        if not os.read(self._wait, 1):
            os._exit(1)  # nobody asks any longer

    def tell(self, outcome: Outcome) -> None:
        os.write(self._tell, json.dumps(outcome).encode() + b"\n")

    def start(self) -> None:
        sys.addaudithook(self._audited)
        begin = lines.Lines.__init__

        def begun(self_: Any, path: Path, size: int = 0) -> None:
            begin(self_, path, size)
            self_._file = _File(self_._file, self)

        lines.Lines.__init__ = begun  # type: ignore[method-assign,assignment]

    def stop(self) -> None:
        self._trouble = None

    def due(self, grows: bool = True, line: bool = False) -> bool:
        """Count a change; whether trouble is due."""
        if self._trouble is None or (self._trouble.kind == "pause" and not line):
            return False
        self._count += 1
        if self._trouble.kind == "full":
            return grows and self._count >= self._trouble.event
        return self._count == self._trouble.event

    def strike(self) -> None:
        kind = "full" if self._trouble is None else self._trouble.kind
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.tell(Outcome("paused"))
        self.wait()

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in _CHANGES and not reads and self.due(event in _GROWING):
            self.strike()


class _File:
    """A file of lines whose changes are events."""

    def __init__(self, file: Any, events: _Events) -> None:
        self._file, self._events = file, events

    def write(self, data: memoryview) -> int:
        if self._events.due(line=True):
            self._events.strike()
        if self._events.due(line=True):
            written = int(self._file.write(data[: len(data) // 2]))
            self._events.strike()
            return written
        written = int(self._file.write(data))
        if self._events.due(grows=False, line=True):
            self._events.strike()
        return written

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def close(self) -> None:
        self._file.close()


def _run(call: Mapping[str, Any], folder: Path, seed: int, events: _Events) -> NoReturn:
    """The command, and the end of the process."""
    events.wait()
    whim = random.Random(seed)
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # until the end
    os.chdir(folder)
    inspector._predictor = lambda class_name, *_: Grey(class_name)
    for module in (ahead, runs):
        module.ThreadPoolExecutor = lambda workers: AtWhim(whim, workers)  # type: ignore[attr-defined]
    outcome = Outcome("done")
    try:
        events.start()
        inspect(**call)
    except SystemExit as error:
        given = error.code
        outcome = Outcome("done", status=given) if isinstance(given, int) else Outcome("broken", str(given))
    except (OSError, ValueError) as error:
        outcome = Outcome("refused", f"{type(error).__name__}: {error}")
    except BaseException:
        outcome = Outcome("broken", traceback.format_exc())
    events.stop()
    events.tell(outcome)
    os._exit(0)
