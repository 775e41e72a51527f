"""Threads that work ahead: in order, within bounds, and gone when nobody wants their work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.utils.threads import in_order, one_ahead


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


def test_one_is_computed_while_the_one_before_it_is_used() -> None:
    begun: list[int] = []
    second = threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            second.set()
        return item * 3

    stream = one_ahead(work, range(9))
    assert next(stream) == 0
    assert second.wait(20)
    assert [*stream] == [3 * item for item in range(1, 9)]
    assert begun == [*range(9)]
    assert [*one_ahead(work, [])] == []


def test_an_error_of_the_items_comes_after_the_values_before_it() -> None:
    def items() -> Iterator[int]:
        yield from (2, 1, 0)
        raise LookupError("no more")

    seen: list[float] = []
    with pytest.raises(LookupError, match="no more"):
        [*_kept(one_ahead(lambda item: item + 1, items()), seen)]
    assert seen == [3, 2, 1]
    del seen[:]
    with pytest.raises(ZeroDivisionError):
        [*_kept(one_ahead(lambda item: 2 / item, items()), seen)]
    assert seen == [1, 2]


def _kept(values: Iterator[float], into: list[float]) -> Iterator[float]:
    for value in values:
        into.append(value)
        yield value


@pytest.mark.parametrize("make", [partial(in_order, workers=1), one_ahead])
def test_the_end_of_a_stream_that_nobody_takes_from_waits_for_no_thread(make: Any) -> None:
    """The garbage collector may end it in a thread that holds what the end of another thread needs."""
    begun, let_go, ended = threading.Event(), threading.Event(), threading.Event()

    def work(item: int) -> int:
        if item:
            begun.set()
            let_go.wait(10)
            ended.set()
        return item

    stream = make(work, range(9))
    assert next(stream) == 0
    assert begun.wait(20)
    stream.close()
    assert not ended.is_set()
    let_go.set()
    assert ended.wait(20)
