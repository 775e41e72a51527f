"""Small matrix products keep to one thread, and large ones get theirs back."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from fieldmark.utils import cpu


def threads() -> list[int]:
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


def test_one_thread_is_for_as_long_as_it_is_asked_for() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    before = threads()
    with cpu.single_threaded():
        assert set(threads()) <= {1}
    assert threads() == before


def test_an_error_gives_the_threads_back() -> None:
    before = threads()
    with pytest.raises(ZeroDivisionError), cpu.single_threaded():
        1 / 0  # noqa: B018
    assert threads() == before


def test_the_last_of_several_threads_lifts_the_limit() -> None:
    before = threads()
    first, second = cpu.single_threaded(), cpu.single_threaded()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(threads()) <= {1}
    second.__exit__(None, None, None)
    assert threads() == before
