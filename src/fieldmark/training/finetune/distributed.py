"""The processes of one training, as `torchrun` starts them, and their communication.

A batch is cut into parts, and each process computes some of them; the gradients are summed by PyTorch's
DistributedDataParallel (Li and others, "PyTorch distributed: experiences on accelerating data parallel
training", VLDB 2020). Without `torchrun` there is one process, which computes all parts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from torch import distributed

from fieldmark.utils.errors import InputError
from fieldmark.utils.typing import IntArray

T = TypeVar("T")


def process_count() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def process_index() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ["RANK"]) if process_count() > 1 else 0


def parts(photos: int, accumulate: int) -> list[tuple[int, IntArray, float]]:
    """Return the parts of a batch that this process computes: number, photos, share of the batch.

    A batch has as many parts as the recipe says, or the next multiple of the number of processes. Every
    process has equally many; an empty part is one photo with weight zero.
    """
    of = -(-accumulate // process_count()) * process_count()
    pieces = np.array_split(np.arange(photos), of)
    mine = [(number, piece) for number, piece in enumerate(pieces) if len(piece) or process_count() > 1]
    return [
        (number, piece if len(piece) else np.zeros(1, np.int64), len(piece) / photos)
        for number, piece in mine
        if number % process_count() == process_index()
    ]


def sum_over_processes(value: float) -> float:
    """Sum a value over all processes."""
    if process_count() == 1:
        return value
    return float(sum(gather(value)))


def gather(value: T) -> list[T]:
    """Return every process's value, in order of the processes."""
    if process_count() == 1:
        return [value]
    every: list[T | None] = [None] * process_count()
    with peer_errors():
        distributed.all_gather_object(every, value)
    return [each for each in every if each is not None]


def barrier() -> None:
    """Wait until every process calls this."""
    gather(0)


@contextmanager
def first_process_first() -> Iterator[None]:
    """Run the block in the first process, then in the others, which find its cached results."""
    if process_index():
        barrier()
    yield
    if not process_index():
        barrier()


@contextmanager
def peer_errors() -> Iterator[None]:
    """Turn the error of a lost connection into a sentence.

    Raises:
        InputError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if process_count() == 1 or not _is_lost_connection(str(error)):
            raise
        raise InputError(
            "Another process of this training has ended: run the same command again to resume from "
            "the last checkpoint."
        ) from error


def _is_lost_connection(text: str) -> bool:
    return any(sign in text.lower() for sign in ("gloo", "nccl", "connection", "socket"))
