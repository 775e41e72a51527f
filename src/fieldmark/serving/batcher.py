"""Threads that collect photos into batches and run the network.

A single photo is run at once. While others are being decoded, a thread waits for them, but a few
milliseconds at most; under load, the photos that arrive during one batch are the next batch.

There are two threads: one prepares a batch or processes its results while the other runs the network.
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


class Batcher:
    """Runs photos in batches, in `THREADS` threads.

    Args:
        predict: Maps crops and numbers of labels to predictions; is called from several threads.
        size: The largest batch.
        pending: Returns how many photos are being decoded.
        on_batch: Called after each batch with the number of photos and the seconds.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        size: int,
        pending: Callable[[], int] = lambda: 0,
        on_batch: Callable[[int, float], None] = lambda _count, _seconds: None,
    ) -> None:
        self._predict, self._size = predict, size
        self._pending, self._on_batch = pending, on_batch
        # Not SimpleQueue: with two consumers, `get` with a timeout can block for ever (CPython 3.11).
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._run, name=f"network {number}", daemon=True)
            for number in range(THREADS)
        ]
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Start the threads; results go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether all threads are running."""
        return all(thread.is_alive() for thread in self._threads)

    async def predict(self, crops: Crops, top: int) -> Prediction:
        """Classify one photo from its crops, one per view, uint8 (S, S, 3)."""
        answer: asyncio.Future[Prediction] = self._loop.create_future()
        self._jobs.put(_Photo(crops, top, answer))
        return await answer

    async def call(self, function: Callable[[], T]) -> T:
        """Run another function that needs the network, in one of the threads."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Call(function, answer))
        return await answer

    async def close(self) -> None:
        """Answer the photos in the queue, then stop the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _run(self) -> None:
        next_jobs: list[_Job | None] = []
        while (job := next_jobs.pop() if next_jobs else self._jobs.get()) is not None:
            if isinstance(job, _Photo):
                self._run_batch(self._collect(job, next_jobs))
            else:
                self._run_call(job)

    def _collect(self, first: _Photo, next_jobs: list[_Job | None]) -> list[_Photo]:
        """Return a batch that begins with `first`; put a job that is not a photo into `next_jobs`."""
        batch = [first]
        until = time.monotonic() + WAIT_SECONDS
        while len(batch) < self._size and not next_jobs:
            try:
                job = self._next(until)
            except queue.Empty:
                break
            if isinstance(job, _Photo):
                batch.append(job)
            else:
                next_jobs.append(job)
        return batch

    def _next(self, until: float) -> _Job | None:
        try:
            return self._jobs.get_nowait()
        except queue.Empty:
            left = until - time.monotonic()
            if left <= 0 or self._pending() <= 0:
                raise
            return self._jobs.get(timeout=left)

    def _run_batch(self, batch: list[_Photo]) -> None:
        wanted = [job for job in batch if not job.answer.cancelled()]
        if not wanted:
            return
        start = time.perf_counter()
        try:
            found: Sequence[Any] = self._predict([job.crops for job in wanted], [job.top for job in wanted])
        except Exception as error:
            found = [error] * len(wanted)
        self._on_batch(len(wanted), time.perf_counter() - start)
        self._deliver([job.answer for job in wanted], found)

    def _run_call(self, job: _Call) -> None:
        if job.answer.cancelled():
            return
        try:
            found = job.function()
        except Exception as error:
            found = error
        self._deliver([job.answer], [found])

    def _deliver(self, answers: Sequence[asyncio.Future[Any]], found: Sequence[Any]) -> None:
        """Pass the results of a batch to the event loop, with one wake-up for all of them."""
        self._loop.call_soon_threadsafe(_resolve, answers, found)


def _resolve(answers: Sequence[asyncio.Future[Any]], found: Sequence[Any]) -> None:
    for answer, value in zip(answers, found, strict=True):
        if answer.done():
            continue
        if isinstance(value, Exception):
            answer.set_exception(value)
        else:
            answer.set_result(value)
