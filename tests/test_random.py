from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.utils import random

GOLDEN = 17909088699444462874  # written down once; a change would change every split
KEYS = st.lists(st.text(max_size=12), unique=True, max_size=60)


@given(keys=st.lists(st.text(max_size=12), max_size=40), context=st.lists(st.integers(), max_size=3))
def test_many_hashes_at_once_are_those_of_each(keys: list[str], context: list[int]) -> None:
    assert random.hashes(keys, *context).tolist() == [random.hash64(key, *context) for key in keys]


def test_the_hash_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert random.hash64("photo", "split", 0) == GOLDEN
    assert random.hash64("photo", "split", 1) != GOLDEN
    assert random.hash64("photo", "split0") != GOLDEN


@given(keys=KEYS, seed=st.integers(0, 2**32), data=st.data())
def test_an_order_depends_on_the_set_of_keys_alone(keys: list[str], seed: int, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(keys))
    first = [keys[i] for i in random.order(keys, seed)]
    assert first == [shuffled[i] for i in random.order(shuffled, seed)]
    assert sorted(first) == sorted(keys)


@given(keys=KEYS.filter(bool), seed=st.integers(0, 2**32), epoch=st.integers(0, 10_000))
def test_a_photo_less_leaves_the_order_of_the_others(keys: list[str], seed: int, epoch: int) -> None:
    base = random.hashes(keys, "order", seed)
    everything = [keys[i] for i in random.epoch_order(base, epoch)]
    rest = keys[1:]
    assert [rest[i] for i in random.epoch_order(base[1:], epoch)] == [
        key for key in everything if key != keys[0]
    ]


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    keys = [str(i) for i in range(200)]
    orders = set()
    for seed in range(4):
        base = random.hashes(keys, "order", seed)
        orders |= {tuple(random.epoch_order(base, epoch).tolist()) for epoch in range(4)}
    assert len(orders) == 16
    assert all(sorted(order) == list(range(200)) for order in orders)


def test_places_in_an_order_are_even() -> None:
    """Each of 8 keys comes first in an eighth of 4,000 orders: five standard deviations are allowed."""
    keys = [str(i) for i in range(8)]
    first = np.bincount([random.order(keys, seed)[0] for seed in range(4000)], minlength=8)
    assert np.all(np.abs(first - 500) < 5 * np.sqrt(4000 * 7 / 64))


def test_a_generator_depends_on_seed_and_context_alone() -> None:
    def numbers(*context: object) -> list[float]:
        return random.generator(*context).random(4).tolist()  # type: ignore[arg-type]

    assert numbers(1, "a", 2) == numbers(1, "a", 2)
    assert len({tuple(numbers(*c)) for c in ((1, "a"), (2, "a"), (1, "b"), (1, "a", 0))}) == 4
