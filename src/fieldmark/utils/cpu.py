"""How many cores there are to use, and the threads of numpy's matrix products.

A product of some thousand numbers is done in a tenth of a millisecond, but the threads that the BLAS
library wakes for it go on spinning for tens of milliseconds in wait of more work, and take a core
from the network. What is small and stands between two runs of a network is better off with one.
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
    """How many processor cores this process may use.

    Where OMP_NUM_THREADS asks for fewer than there are, it is those: Ray and Slurm say so how many
    belong to one of several processes on a machine.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(there or 1, int(asked) if asked.isdecimal() and int(asked) else there or 1)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Matrix products of numpy run in the thread that asks for them.

    The limit holds for the whole process: of several threads the first sets it, the last lifts it.
    """
    me = object()
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


@cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
