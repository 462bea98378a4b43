"""Reading ahead: while a batch of images is scored, threads take the next ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_END = object()
OnError = Callable[[Any, ValueError], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Ahead(Generic[T]):
    """What was taken of an image ahead of its turn.

    Attributes:
        number: Of the image among those that were given, from 0.
        source: What was given.
        taken: What was taken of it.
    """

    number: int
    source: Any
    taken: T


def in_batches(
    images: Iterable[Any], take: Callable[[Any], T], workers: int, batch_size: int, on_error: OnError | None
) -> Iterator[list[Ahead[T]]]:
    """What is taken of images, some at a time, in their order.

    Args:
        images: In any form that ``take`` understands; a ``None`` among them says that there is none for now, so that
            those before it wait for no others.
        take: Called by threads.
        workers: How many of them.
        batch_size: How many images at most come together.
        on_error: Called with an image of which nothing could be taken, and why; by default the error ends it all.

    Raises:
        ValueError: Without ``on_error``, if nothing can be taken of an image; after what came before it.
        Exception: What ``images`` or ``take`` raises, likewise.
    """
    sources = iter(images)
    ahead: deque[tuple[int, Any, Future[T]]] = deque()
    failure: Exception | None = None
    with ThreadPoolExecutor(workers) as pool:
        batch: list[Ahead[T]] = []
        more, count = True, 0
        while more or ahead:
            pause = False
            while more and not pause and len(ahead) < 2 * batch_size:
                try:
                    source = next(sources, _END)
                except Exception as error:  # what was given before is looked at first
                    more, failure = False, error
                    break
                more, pause = source is not _END, source is None
                if more and not pause:
                    ahead.append((count, source, pool.submit(take, source)))
                    count += 1
            if ahead:
                number, source, future = ahead.popleft()
                try:
                    batch.append(Ahead(number, source, future.result()))
                except ValueError as error:
                    if on_error is None:
                        failure = error
                        break
                    on_error(source, error)
            if len(batch) == batch_size or (batch and pause and not ahead):
                yield batch
                batch = []
        for _, _, future in ahead:
            future.cancel()
        if batch:
            yield batch
    if failure is not None:
        raise failure
