"""The threads of numpy's matrix products.

A product of some thousand numbers is done in a tenth of a millisecond, but the threads that the BLAS
library wakes for it go on spinning for tens of milliseconds in wait of more work, and take a core
from the network. What is small and stands between two runs of a network is better off with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrix products of numpy run in the thread that asks for them."""
    with _numpys().limit(limits=1):
        yield


@cache
def _numpys() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
