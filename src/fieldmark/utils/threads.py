"""Run work in threads: results in order, and values shared between threads."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from fieldmark.utils.cpu import cores

S = TypeVar("S")
T = TypeVar("T")

AHEAD = 64  # photos decoded ahead: two batches, so that the network never waits for one photo


def in_order(
    work: Callable[[S], T],
    items: Iterable[S],
    workers: int | None = None,
    ahead: int = AHEAD,
    *,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[T]:
    """Yield `work(item)` for each item, in order, computed in `workers` threads (None: one a core).

    At most `ahead` items (or four a worker) are in progress, so that memory does not grow with their number.
    If the loop ends early (an error, Ctrl-C, or a consumer that stops), no further item begins, and `stop` is
    called to interrupt work that waits.
    """
    workers = workers or cores()
    ahead = max(ahead, 4 * workers)
    waiting: deque[Future[T]] = deque()
    with _threads(workers, stop) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def one_ahead(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Yield `work(item)` for each item, in order; a thread computes the next one while the caller uses one.

    An error of the items is raised after the values of those before it.
    """
    with _threads(1) as pool:
        given, before, error = iter(items), None, None
        while error is None:
            now: Future[T] | None = None
            try:
                now = pool.submit(work, next(given))
            except Exception as found:  # it has its turn below
                error = found
            if before is not None:
                yield before.result()
            before = now
        if not isinstance(error, StopIteration):
            raise error


@contextmanager
def _threads(count: int, stop: Callable[[], None] = lambda: None) -> Iterator[ThreadPoolExecutor]:
    """Give a generator threads, which begin no further work once it ends early; they are waited for.

    Not where nobody takes from it any more: then the garbage collector may end it, in any thread and under
    any lock, also under one that the end of a thread needs.
    """
    pool, wait = ThreadPoolExecutor(count, "fieldmark"), True
    try:
        yield pool
    except BaseException as error:
        wait = not isinstance(error, GeneratorExit)
        stop()
        raise
    finally:
        pool.shutdown(wait=wait, cancel_futures=True)


class RecentValues(Generic[T]):
    """Cache the last few values by key; a value that several threads need is computed once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Hashable, Future[T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the cached value of a key, or else compute it."""
        with self._lock:
            known = key in self._values
            value = self._values.setdefault(key, Future())
            self._values.move_to_end(key)
            while len(self._values) > self._size:
                self._values.popitem(last=False)
        if not known:
            try:
                value.set_result(compute())
            except BaseException as error:
                with self._lock:  # the next caller tries again
                    if self._values.get(key) is value:
                        del self._values[key]
                value.set_exception(error)
        return value.result()
