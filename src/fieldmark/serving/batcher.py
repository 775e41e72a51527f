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
Predict = Callable[[Sequence[Crops], Sequence[Any]], Sequence[Prediction]]

T = TypeVar("T")
Job = TypeVar("Job", "_Photo", "_Call")

WAIT_SECONDS = 0.004
THREADS = 2


@dataclass(frozen=True, eq=False)
class _Photo:
    answer: asyncio.Future[Prediction]
    crops: Crops
    how: object


@dataclass(frozen=True, eq=False)
class _Call:
    answer: asyncio.Future[Any]
    function: Callable[[], Any]


class Batcher:
    """Runs photos in batches, in `THREADS` threads.

    Args:
        predict: Maps crops, and how each is to be ranked, to predictions; is called from several threads.
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
        self._jobs: queue.Queue[_Photo | _Call | None] = queue.Queue()
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

    async def predict(self, crops: Crops, how: object) -> Prediction:
        """Classify one photo from its crops, one per view, uint8 (S, S, 3); `how` is passed on."""
        job = _Photo(self._loop.create_future(), crops, how)
        self._jobs.put(job)
        return await job.answer

    async def call(self, function: Callable[[], T]) -> T:
        """Run another function that needs the network, in one of the threads."""
        answer: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Call(answer, function))
        return await answer

    async def close(self) -> None:
        """Answer the photos in the queue, then stop the threads."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _run(self) -> None:
        next_jobs: list[_Photo | _Call | None] = []
        while (job := next_jobs.pop() if next_jobs else self._jobs.get()) is not None:
            if isinstance(job, _Photo):
                self._answer(self._collect(job, next_jobs), self._run_batch)
            else:
                self._answer([job], lambda calls: [calls[0].function()])

    def _collect(self, first: _Photo, next_jobs: list[_Photo | _Call | None]) -> list[_Photo]:
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

    def _next(self, until: float) -> _Photo | _Call | None:
        try:
            return self._jobs.get_nowait()
        except queue.Empty:
            left = until - time.monotonic()
            if left <= 0 or self._pending() <= 0:
                raise
            return self._jobs.get(timeout=left)

    def _answer(self, jobs: Sequence[Job], compute: Callable[[Sequence[Job]], Sequence[Any]]) -> None:
        """Pass the results of jobs to the event loop, with one wake-up for all of them."""
        wanted = [job for job in jobs if not job.answer.cancelled()]
        if not wanted:
            return
        try:
            found = compute(wanted)
        except Exception as error:
            found = [error] * len(wanted)
        self._loop.call_soon_threadsafe(_resolve, [job.answer for job in wanted], found)

    def _run_batch(self, batch: Sequence[_Photo]) -> Sequence[Prediction]:
        start = time.perf_counter()
        try:
            return self._predict([job.crops for job in batch], [job.how for job in batch])
        finally:
            self._on_batch(len(batch), time.perf_counter() - start)


def _resolve(answers: Sequence[asyncio.Future[Any]], found: Sequence[Any]) -> None:
    for answer, value in zip(answers, found, strict=True):
        if answer.done():
            continue
        if isinstance(value, Exception):
            answer.set_exception(value)
        else:
            answer.set_result(value)
