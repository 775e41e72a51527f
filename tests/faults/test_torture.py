"""A fixed sample of `make torture`: a command is killed, or its disk fails, at one write; then it runs again.

What must hold at every point: no traceback, one sentence and exit code 2, old results whole, the user's files
as they were, and after the second run the same bytes as without a fault, and nothing left over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.torture import commands
from tests.torture.scan import Torture
from tests.torture.shim import FAULTS, build

BY_NAME = {each.name: each for each in commands.COMMANDS}
KINDS = {each.name: each for each in FAULTS}
# Shares of the calls of a run at which each fault is tried.
SAMPLE = {
    "index": {"kill": (0.3, 1.0), "ENOSPC": (0.4,), "SIGTERM": (0.2,)},
    "extract": {"kill": (0.55,), "EIO": (0.65,)},
    "predict": {"kill": (0.6,), "EDQUOT": (0.45,), "Ctrl-C": (0.5,)},
    "fetch": {"kill": (0.5,), "EROFS": (0.25,)},
}


@pytest.fixture(scope="module")
def torture(draw: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Torture]:
    folder = tmp_path_factory.mktemp("torture")
    if (library := build(folder)) is None:
        pytest.skip("there is no C compiler (cc), or this is not Linux")
    made = Torture(folder / "run", library, draw)
    yield made
    made.close()


@pytest.mark.parametrize("name", SAMPLE)
def test_a_fault_at_any_write_costs_nothing_but_time(torture: Torture, name: str) -> None:
    _, calls = torture.clean(BY_NAME[name])
    ends = set()
    for kind, shares in SAMPLE[name].items():
        for share in shares:
            found = torture.point(BY_NAME[name], KINDS[kind], max(1, round(share * len(calls))))
            assert not found.problems, found
            ends.add((kind, found.code))
    assert ("kill", -9) in ends  # the faults do happen
    assert any(code == 2 for _, code in ends)


def test_the_scan_sees_what_is_wrong(torture: Torture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that leaves something, or other bytes, is found out."""
    index = BY_NAME["index"]
    wanted, calls = torture.clean(index)
    monkeypatch.setattr(torture, "_after", {})
    monkeypatch.setitem(
        torture._clean, "index", (wanted | {"photos.parquet": "other", "more.txt": "x"}, calls)
    )
    found = torture.point(index, KINDS["kill"], 2)
    assert [each.split(":")[0] for each in found.problems] == [
        "more.txt is missing",
        "photos.parquet differs",
    ]
