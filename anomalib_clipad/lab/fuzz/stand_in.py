"""What stands in for a model and for threads, so that a run takes milliseconds and does the same each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from random import Random
from typing import Any

import numpy as np

from anomalib_clipad.images.picture import Picture
from anomalib_clipad.predictor.base import Predictor, Prepared, Scored, Shown, numbers
from anomalib_clipad.verdicts.normal_scores import Limits, NormalScores
from anomalib_clipad.vision.tile_grid import TileGrid


class Grey(Predictor):
    """Scores an image by its grey, or by how far that is from the mean grey of references; each pixel likewise."""

    class_name = None
    own_limits = Limits(0.5, 0.5)
    normalized = True
    normal: NormalScores | None = None
    grid: TileGrid | None = None
    aspect = 0.0

    def __init__(self, class_name: str | None) -> None:
        self.class_name = class_name
        self._middle = 0.0

    def keep_normal(self, normal: NormalScores | None) -> None:
        """See the base class."""
        self.normal = normal

    def score(self, images: Sequence[Prepared]) -> Scored:
        """See the base class."""
        return numbers(self._raw(images))

    def fit(self, shown: Iterable[Shown], memory_size: int | None = None) -> None:
        """See the base class."""
        del memory_size
        given = list(shown)
        self.references = tuple(one.identity for one in given)
        self._middle = float(np.mean([one.prepared.mean() for one in given]))

    def _prepare(self, picture: Picture) -> Prepared:
        return np.asarray(picture.levels.mean(axis=0), np.float32)

    def _raw(self, images: Sequence[Prepared]) -> Scored:
        maps = np.abs(np.stack(images) - np.float32(self._middle))
        return Scored(maps.mean(axis=(1, 2)), maps)


class AtWhim(Executor):
    """A pool that works when it is asked for, or before, as a seed has it; always in the thread that asks.

    Args:
        whim: Whether something is done before it is asked for.
        workers: For the interface's sake.
    """

    def __init__(self, whim: Random, workers: int = 1) -> None:
        del workers
        self._whim = whim
        self._tasks: list[_Task] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Keep something that is to be done."""
        task = _Task(lambda: fn(*args, **kwargs), self._whim)
        self._tasks.append(task)
        return task

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do what was neither done nor cancelled."""
        del wait, cancel_futures
        for task in self._tasks:
            task.work()


class _Task(Future[Any]):
    def __init__(self, todo: Callable[[], Any], whim: Random) -> None:
        super().__init__()
        self._todo, self._whim = todo, whim

    def work(self) -> None:
        if not super().done() and self.set_running_or_notify_cancel():
            try:
                self.set_result(self._todo())
            except BaseException as error:
                self.set_exception(error)

    def done(self) -> bool:
        if self._whim.random() < 0.5:
            self.work()
        return super().done()

    def result(self, timeout: float | None = None) -> Any:
        self.work()
        return super().result(timeout)
