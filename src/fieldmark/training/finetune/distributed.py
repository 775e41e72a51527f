"""The processes of one training, as `torchrun` starts them: which this is, what they tell each other.

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
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def process_index() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if process_count() > 1 else 0


def parts(photos: int, accumulate: int) -> list[tuple[int, IntArray, float]]:
    """The parts of a batch that this process computes: number, photos, and their share of the batch.

    A batch has as many parts as the recipe says, or the next multiple of the number of processes.
    Every process has as many as the others: a part without a photo is a photo that does not count.
    """
    of = -(-accumulate // process_count()) * process_count()
    pieces = np.array_split(np.arange(photos), of)
    mine = [
        (number, piece) for number, piece in enumerate(pieces) if len(piece) or process_count() > 1
    ]
    return [
        (number, piece if len(piece) else np.zeros(1, np.int64), len(piece) / photos)
        for number, piece in mine
        if number % process_count() == process_index()
    ]


def sum_over_processes(value: float) -> float:
    """The sum over all processes."""
    if process_count() == 1:
        return value
    return float(sum(gather(value)))


def gather(value: T) -> list[T]:
    """What every process has, by rank."""
    if process_count() == 1:
        return [value]
    every: list[T | None] = [None] * process_count()
    with peer_errors():
        distributed.all_gather_object(every, value)
    return [each for each in every if each is not None]


def barrier() -> None:
    """Wait until every process is here."""
    gather(0)


@contextmanager
def first_process_first() -> Iterator[None]:
    """The first process runs the block, then the others do, who find what it has kept."""
    if process_index():
        barrier()
    yield
    if not process_index():
        barrier()


@contextmanager
def peer_errors() -> Iterator[None]:
    """Say in a sentence that another process is gone.

    Raises:
        InputError: it is.
    """
    try:
        yield
    except RuntimeError as error:
        if process_count() == 1 or not _is_silence(str(error)):
            raise
        raise InputError(
            "Another process of this training has ended: run the same command again; it goes on "
            "from where it was last kept."
        ) from error


def _is_silence(text: str) -> bool:
    return any(sign in text.lower() for sign in ("gloo", "nccl", "connection", "socket"))
