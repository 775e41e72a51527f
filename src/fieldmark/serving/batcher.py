"""The threads that feed the network: photos that come together are run together.

A photo that comes alone is run at once. Where more are on their way through decoding, a thread waits
for them, but a few milliseconds at most; under load whatever has come in during one batch is the next.

There are two threads, so that one batch is put together, or its answers are worked out, while the
network runs the other, and no core waits for the end of a batch.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fieldmark.inference.classifier import Prediction
from fieldmark.utils.typing import ByteArray

Crops = tuple[ByteArray, ...]
Predict = Callable[[Sequence[Crops], Sequence[int]], list[Prediction]]

T = TypeVar("T")

WAIT_SECONDS = 0.004
THREADS = 2


@dataclass(frozen=True, eq=False)
class _Photo:
    crops: Crops
    top: int
    answer: asyncio.Future[Prediction]


@dataclass(frozen=True, eq=False)
class _Call:
    function: Callable[[], Any]
    answer: asyncio.Future[Any]


_Job = _Photo | _Call


class Batches:
    """Photos in one at a time, answers out, of one batch in each of `THREADS` threads.

    Args:
        predict: crops and how many labels are wanted of each -> predictions; is called from several
            threads at a time.
        size: how many photos are run at once.
        coming: how many photos are on their way here.
        measured: told of each batch: how many photos, how many seconds.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        size: int,
        coming: Callable[[], int] = lambda: 0,
        measured: Callable[[int, float], None] = lambda _count, _seconds: None,
    ) -> None:
        self._predict, self._size, self._coming = predict, size, coming
        self._measured = measured
        # No SimpleQueue: with two threads that take from one, `get` with a timeout can wait for ever in
        # CPython 3.11, when the other takes what it was woken for just before the time is over.
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._run, name=f"network {number}", daemon=True)
            for number in range(THREADS)
        ]
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Start the threads; answers go to the event loop that is running."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether all threads are there."""
        return all(thread.is_alive() for thread in self._threads)

    async def predict(self, crops: Crops, top: int) -> Prediction:
        """What the classifier says of one photo's crops, uint8 (S, S, 3), view by view."""
        answer: asyncio.Future[Prediction] = self._loop.create_future()
        self._jobs.put(_Photo(crops, top, answer))
        return await answer

    async def call(self, function: Callable[[], T]) -> T:
        """Run something else that needs the network, in one of its threads, in its turn."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Call(function, answer))
        return await answer

    async def close(self) -> None:
        """Answer what is waiting, then end the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _run(self) -> None:
        after: list[_Job | None] = []
        while (job := after.pop() if after else self._jobs.get()) is not None:
            if isinstance(job, _Photo):
                self._do_batch(self._gather(job, after))
            else:
                self._do_call(job)

    def _gather(self, first: _Photo, after: list[_Job | None]) -> list[_Photo]:
        """A batch that begins with `first`; what comes next and is no photo is put into `after`."""
        batch = [first]
        until = time.monotonic() + WAIT_SECONDS
        while len(batch) < self._size and not after:
            try:
                job = self._next(until)
            except queue.Empty:
                break
            if isinstance(job, _Photo):
                batch.append(job)
            else:
                after.append(job)
        return batch

    def _next(self, until: float) -> _Job | None:
        try:
            return self._jobs.get_nowait()
        except queue.Empty:
            left = until - time.monotonic()
            if left <= 0 or self._coming() <= 0:
                raise
            return self._jobs.get(timeout=left)

    def _do_batch(self, batch: list[_Photo]) -> None:
        wanted = [job for job in batch if not job.answer.cancelled()]
        if not wanted:
            return
        start = time.perf_counter()
        try:
            found: Sequence[Any] = self._predict(
                [job.crops for job in wanted], [job.top for job in wanted]
            )
        except Exception as error:
            found = [error] * len(wanted)
        self._measured(len(wanted), time.perf_counter() - start)
        self._give([job.answer for job in wanted], found)

    def _do_call(self, job: _Call) -> None:
        if job.answer.cancelled():
            return
        try:
            found = job.function()
        except Exception as error:
            found = error
        self._give([job.answer], [found])

    def _give(self, answers: Sequence[asyncio.Future[Any]], found: Sequence[Any]) -> None:
        """Hand a batch's answers to the event loop, which is woken once for all of them."""
        self._loop.call_soon_threadsafe(_settle, answers, found)


def _settle(answers: Sequence[asyncio.Future[Any]], found: Sequence[Any]) -> None:
    for answer, value in zip(answers, found, strict=True):
        if answer.done():
            continue
        if isinstance(value, Exception):
            answer.set_exception(value)
        else:
            answer.set_result(value)
