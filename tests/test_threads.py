"""Threads that work ahead: in order, within bounds, and gone when nobody wants their work."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.utils.threads import in_order


@given(st.lists(st.integers()), st.integers(1, 4), st.integers(0, 9))
def test_results_are_those_of_a_loop(items: list[int], workers: int, ahead: int) -> None:
    assert list(in_order(lambda item: item * 3, items, workers, ahead)) == [3 * i for i in items]


def test_items_are_taken_as_they_are_needed() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    stream = in_order(lambda item: item, endless(), workers=2, ahead=10)
    assert [next(stream) for _ in range(5)] == [1, 2, 3, 4, 5]
    stream.close()
    assert taken <= 5 + 10


def test_an_error_stops_what_waits_and_begins_nothing_more() -> None:
    let_go, begun = threading.Event(), []

    def work(item: int) -> int:
        begun.append(item)
        if item == 0:
            raise ValueError("the first")
        assert let_go.wait(20)  # only the stop lets it go on
        return item

    with pytest.raises(ValueError, match="the first"):
        list(in_order(work, range(100), workers=2, ahead=8, stop=let_go.set))
    assert let_go.is_set()
    assert len(begun) < 20


def test_a_taker_that_wants_no_more_is_a_stop() -> None:
    stopped = []
    stream = in_order(lambda item: item, range(10), workers=1, stop=lambda: stopped.append(True))
    next(stream)
    stream.close()
    assert stopped == [True]
    stopped.clear()
    assert len(list(in_order(abs, range(3), stop=lambda: stopped.append(True)))) == 3
    assert not stopped
