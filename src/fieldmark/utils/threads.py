"""Work done in threads ahead of where its results are taken, in order and within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fieldmark.utils.cpu import cores

S = TypeVar("S")
T = TypeVar("T")

AHEAD = 64
"""How far photos are decoded ahead: two batches, so that the network never waits for one photo."""


def in_order(
    work: Callable[[S], T],
    items: Iterable[S],
    workers: int | None = None,
    ahead: int = AHEAD,
    *,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[T]:
    """What `work` gives for each item, in order.

    At most `ahead` items (or four a worker) are under way, so that memory does not grow with their
    number. Whatever ends the loop early, an error of one item, Ctrl-C, or a taker that wants no more,
    what has not begun never begins.

    Args:
        work: what is done with an item; it should let go of Python's lock.
        items: taken as they are needed.
        workers: how many threads; by default one a core.
        ahead: how many items are under way at most.
        stop: is called where the loop ends early, to let work under way leave where it waits.
    """
    workers = workers or cores()
    ahead = max(ahead, 4 * workers)
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, "fieldmark")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BaseException:
        stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
