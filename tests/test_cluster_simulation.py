"""The simulation of a cluster: where its answer is known."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st


def scaling() -> Any:
    path = Path(__file__).parent.parent / "scripts" / "scaling.py"
    spec = importlib.util.spec_from_file_location("scaling", path)
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = found
    spec.loader.exec_module(found)
    return found


SCALING = scaling()
PLAN = SCALING.Plan(
    photos=100_000,
    shards=20,
    workers=4,
    megabytes=0.1,
    decode=0.004,
    cores=8,
    forward=1 / 1500,
    network=10_000,
    link=10_000,
)


@pytest.mark.parametrize(
    ("changed", "saturated", "seconds"),
    [
        ({}, "device", 100_000 / 1500 / 4),
        ({"cores": 2}, "decoding", 100_000 * 0.004 / 2 / 4),
        ({"resize": 0.001}, "decoding", 100_000 * 0.001 / 4),
        ({"network": 400}, "storage", 100_000 * 0.1 / 400),
        ({"shared_cores": True, "forward": 0.002}, "decoding", 100_000 * 0.006 / 8 / 4),
    ],
)
def test_the_slowest_stage_sets_the_time(changed: dict[str, float], saturated: str, seconds: float) -> None:
    found = SCALING.simulate(replace(PLAN, **changed))
    assert found.saturated == saturated
    # A pipe has to fill up and run dry once a shard: a little more than the slowest stage alone.
    assert seconds <= found.seconds < 1.35 * seconds


def test_photos_that_are_waited_for_keep_every_stage_idle() -> None:
    found = SCALING.simulate(replace(PLAN, latency=0.08))
    assert found.seconds == pytest.approx(100_000 * 0.08 / 8 / 4, rel=0.1)
    assert max(found.busy.values()) < 0.5


def test_a_start_and_an_overhead_are_added() -> None:
    plain = SCALING.simulate(PLAN).seconds
    assert SCALING.simulate(replace(PLAN, start=30.0)).seconds == pytest.approx(plain + 30)
    # 5 shards for each of 4 workers, one after the other.
    more = SCALING.simulate(replace(PLAN, overhead=2.0)).seconds
    assert more == pytest.approx(plain + 5 * 2, rel=0.05)


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 100_000))
def test_no_stage_is_busier_than_the_time_and_more_workers_are_never_slower(
    shards: int, workers: int, photos: int
) -> None:
    plan = replace(PLAN, photos=photos, shards=shards, workers=workers)
    found = SCALING.simulate(plan)
    assert all(0 <= share <= 1.0001 for share in found.busy.values())
    assert SCALING.simulate(replace(plan, workers=workers + 1)).seconds <= found.seconds * 1.0001


def test_the_plan_in_the_document_is_the_one_that_is_printed() -> None:
    document = (Path(__file__).parent.parent / "docs" / "scaling.md").read_text()
    assert SCALING.table() in document
