"""The number of usable cores, and the threads of NumPy's matrix products.

The threads that BLAS starts for a small product spin for tens of milliseconds afterwards and take a core
from the network: small products between two runs of a network are faster in one thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

_lock = threading.Lock()
_limit = ExitStack()
_users: set[object] = set()


def cores() -> int:
    """Return how many processor cores this process may use.

    At most OMP_NUM_THREADS, by which Ray and Slurm divide a machine between processes.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(there, int(asked)) if asked.isdecimal() and int(asked) else there


@contextmanager
def single_threaded(*, torch_too: bool = False) -> Iterator[None]:
    """Run NumPy's matrix products, and PyTorch's if asked for, in the calling thread.

    The limit holds for the process: of several threads the first sets it, the last removes it. PyTorch's
    holds for threads that start within the block.
    """
    me = object()
    if torch_too:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1)
    with _lock:
        if not _users:
            _limit.enter_context(_blas().limit(limits=1))
        _users.add(me)
    try:
        yield
    finally:
        with _lock:
            _users.remove(me)
            if not _users:
                _limit.close()
        if torch_too:
            torch.set_num_threads(before)


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
