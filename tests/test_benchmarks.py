"""The benchmarks: their arithmetic is right, and each runs. Never how fast anything is."""

from __future__ import annotations

import importlib
import inspect
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from benchmarks import BENCHMARKS, LONG, __main__, common, growth, shown
from benchmarks.common import Row, alternate, compare
from hypothesis import given
from hypothesis import strategies as st

NETWORK = "shufflenet_v2_x0_5"
TIMES = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=9)


def row(**changes: Any) -> Row:
    values: dict[str, Any] = {"what": "a", "unit": "s", "ours": 1.0, "peer": 2.0, "ratio": 2.0}
    values |= {"peer_name": "Pillow", "low": 1.5, "high": 2.5, "rounds": 5}
    return Row(**(values | changes))


# --- the harness -----------------------------------------------------------------------------------


def test_ways_run_once_a_round_and_each_round_begins_with_the_next() -> None:
    calls: list[str] = []

    def way(name: str) -> Callable[[], float]:
        return lambda: float(len(calls.append(name) or calls))

    values = alternate({name: way(name) for name in "abc"}, 4)

    assert "".join(calls) == "abc" + "bca" + "cab" + "abc"
    assert values["b"] == [2.0, 4.0, 9.0, 11.0]


def test_a_warm_up_is_not_counted() -> None:
    numbers: Iterator[float] = iter([100.0, 1.0, 2.0])

    values = alternate({"ours": lambda: next(numbers)}, 2, warm_up=True)

    assert values == {"ours": [1.0, 2.0]}


def test_of_times_the_shorter_is_better() -> None:
    found = compare("x", {"ours": [1, 2, 9], "peer": [4, 6, 5]}, "ours", "peer")

    assert (found.ours, found.peer, found.ratio) == (2, 5, 2.5)
    assert (found.low, found.high, found.rounds) == (5 / 9, 4, 3)


def test_of_rates_the_higher_is_better() -> None:
    values = {"ours": [30, 10, 20], "peer": [5, 5, 40]}

    found = compare("x", values, "ours", "peer", unit="img/s", more_is_better=True)

    assert (found.ours, found.peer, found.ratio, found.low, found.high) == (20, 5, 4, 0.5, 6)


@given(TIMES)
def test_a_way_beside_itself_is_even(times: list[float]) -> None:
    found = compare("x", {"ours": times, "peer": times}, "ours", "peer")

    assert found.ratio == found.low == found.high == 1


@given(TIMES, st.floats(1e-3, 1e3))
def test_times_and_their_rates_give_one_ratio_where_rounds_are_alike(
    times: list[float], factor: float
) -> None:
    values = {"ours": times, "peer": [factor * each for each in times]}
    rates = {name: [1 / each for each in each_way] for name, each_way in values.items()}

    by_time = compare("x", values, "ours", "peer")
    by_rate = compare("x", rates, "ours", "peer", more_is_better=True)

    assert by_time.low == pytest.approx(factor) == by_rate.high
    if len(times) % 2:  # of an even number, the mean of the middle two is no longer the inverse
        assert by_time.ratio == pytest.approx(by_rate.ratio)


def test_ways_of_different_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same rounds"):
        compare("x", {"ours": [1.0], "peer": [1.0, 2.0]}, "ours", "peer")


def test_too_few_rounds_are_marked() -> None:
    assert "1 of 5 rounds!" in common.table("t", [row(rounds=1)])
    assert "!" not in common.table("t", [row(rounds=5)])
    assert "no timing" in common.table("t", [row(rounds=common.EXACT)])


def test_a_record_says_all_that_a_figure_depends_on() -> None:
    found = common.record("decode", [row(more={"deep": [1 / 3]})], seconds=2.0, load=0.5)

    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["rows"][0]["more"] == {"deep": [0.3333]}
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["load_before"] == 0.5
    assert {"commit", "command", "date", "versions"} <= set(found)
    assert {"python", "torch", "fieldmark"} <= set(found["versions"])
    assert asdict(shown.rows_of(found)[0])["more"] == {"deep": [0.3333]}


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.01234, "0.0123"), (1.0, "1"), (99.94, "99.9"), (12345.6, "12,346")]
)
def test_a_figure_has_three_digits_that_count(value: float, text: str) -> None:
    assert common.figure(value) == text


def test_what_is_not_here_is_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(common, "SHARED", tmp_path)

    with pytest.raises(common.Unavailable, match="data/wild74"):
        common.shared("data", "wild74")


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def stand_in(monkeypatch: pytest.MonkeyPatch, run: Callable[..., list[Row]]) -> None:
    module = type("Module", (), {"run": staticmethod(run)})
    monkeypatch.setattr(importlib, "import_module", lambda name: module)


def test_a_run_is_printed_and_kept(
    monkeypatch: pytest.MonkeyPatch, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, lambda quick: [row(what="crops")])

    assert __main__.main(["decode"]) == 0

    assert "crops" in capsys.readouterr().out
    kept = json.loads((results / "decode.json").read_text())
    assert [each["what"] for each in kept["rows"]] == ["crops"]


def test_a_quick_run_keeps_nothing(monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    stand_in(monkeypatch, lambda quick: [row(rounds=1 if quick else 5)])

    assert __main__.main(["decode", "--quick"]) == 0
    assert not results.exists()


def test_one_that_breaks_does_not_keep_the_others_from_running(
    monkeypatch: pytest.MonkeyPatch, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []

    def run(quick: bool) -> list[Row]:
        calls.append("run")
        if len(calls) == 1:
            raise RuntimeError("no luck")
        raise common.Unavailable("no GPU is here")

    stand_in(monkeypatch, run)

    assert __main__.main(["decode", "gpu"]) == 1
    assert len(calls) == 2
    told = capsys.readouterr()
    assert "no luck" in told.err
    assert "no GPU is here" in told.out
    assert not results.exists()


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["nothing"])
    assert "table3" in capsys.readouterr().err


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_a_module_that_can_be_run(name: str) -> None:
    run = importlib.import_module(f"benchmarks.{name}").run

    assert inspect.signature(run).parameters["quick"].default is False
    assert set(LONG) <= set(BENCHMARKS)


# --- what is shown ---------------------------------------------------------------------------------


def hardware() -> dict[str, Any]:
    networks = {"tf_efficientnet_lite0": (1280, 50.0), **dict.fromkeys(shown._NETWORKS, (1000, 10.0))}
    rows = [
        row(what=name, more={"network": name, "giga_macs": 1.0, "dim": dim, "photos_per_second": rate})
        for name, (dim, rate) in networks.items()
    ]
    rows[0].more.update(disk_write_gb_per_second=1.0, disk_read_gb_per_second=2.0)
    rows += [row(what="last layer, D=2,048", ours=60.0), row(what="decode + resize", ours=100.0)]
    return common.record("hardware", rows, 1.0, 0.0)


def tables() -> dict[str, Any]:
    more = {"peak_gib": 1.0, "photos": 2**20}
    return common.record("tables", [row(ours=10.48576, more=more)], 1.0, 0.0)


def test_the_cost_model_is_the_arithmetic_that_it_says() -> None:
    constants = growth.Constants.of(hardware(), tables())
    names = shown._NETWORKS[:2]

    found = growth.cost(constants, 1_000_000, 1000, names)

    assert found.tables == pytest.approx(10.0, rel=1e-3)
    assert found.decoding == pytest.approx(10_000)
    assert found.features == pytest.approx(2 * 100_000)
    assert found.heads == pytest.approx(10 * 6 * 1e6 * 1000 * 2000 / 60e9)
    assert found.disk_bytes == 1e6 * 2 * 2 * 1000
    assert found.memory_bytes == pytest.approx(max(1e6 * 2**10, 16 * 1000 * 1000))
    assert found.reference == pytest.approx(10 * (2 * 10_000 + 200_000))
    assert found.total == found.tables + found.decoding + found.features + found.heads


def test_the_last_layers_read_from_disk_where_that_takes_longer() -> None:
    constants = growth.Constants.of(hardware(), tables())

    few = growth.cost(constants, 1000, 2, shown._NETWORKS[:1])

    assert few.heads == pytest.approx(10 * 1000 * 1000 * 2 / 2e9)


def test_at_the_even_number_of_classes_heads_cost_what_networks_cost() -> None:
    constants = growth.Constants.of(hardware(), tables())
    classes = growth.even(constants, shown._NETWORKS)

    found = growth.cost(constants, 1000, round(classes), shown._NETWORKS)

    assert found.heads == pytest.approx(found.features, rel=1e-3)


def test_a_block_is_made_anew_and_twice_is_once() -> None:
    text = "# A\n\n<!-- growth:begin -->\nold\n<!-- growth:end -->\n\nrest\n"
    found = {"hardware": hardware(), "tables": tables()}

    once = shown.renewed(text, found)

    assert "old" not in once
    assert "10,000,000 photos, 100,000 classes" in once
    assert once.endswith("rest\n")
    assert shown.renewed(once, found) == once


@pytest.mark.parametrize("name", shown.BLOCKS)
def test_a_block_without_its_results_says_so(name: str) -> None:
    assert "Not measured yet" in shown.BLOCKS[name]({})


def test_every_block_of_the_documents_is_known_and_up_to_date() -> None:
    found = shown.results()
    for path in shown.DOCUMENTS:
        text = path.read_text()
        assert shown._MARK.search(text), path
        assert shown.renewed(text, found) == text, "run: python -m benchmarks --write-readme"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5 s"), (119.0, "119 s"), (180.0, "3 min"), (7200.0, "2 h"), (864_000.0, "10 days")],
)
def test_a_time_is_said_in_a_unit_that_fits(seconds: float, text: str) -> None:
    assert shown._time(seconds) == text


# --- each of them, on very little ------------------------------------------------------------------


def check_rows(rows: list[Row]) -> None:
    assert rows
    for each in rows:
        assert isinstance(each, Row)
        assert each.what
        assert each.peer_name
        assert all(math.isfinite(value) for value in (each.ours, each.peer, each.ratio))
        assert each.low <= each.ratio <= each.high or each.rounds > 1
        assert each.rounds >= 1 or each.rounds == common.EXACT
    json.dumps([asdict(each) for each in rows], allow_nan=False)


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference's loaders without processes of their own."""
    from benchmarks import reference

    monkeypatch.setattr(reference, "cores", lambda: 0)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights for the network that is tried, so that nothing is looked for elsewhere."""
    from safetensors.torch import save_file

    from fieldmark import models

    network = models.load(NETWORK, weights="random", seed=1).network
    (tmp_path / "weights").mkdir()
    save_file(network.state_dict(), tmp_path / "weights" / f"{NETWORK}.safetensors")
    return tmp_path / "weights"


RECIPE = f"""
from fieldmark.experiments.runs import Recipe, Run

def recipe(options):
    return Recipe("tiny", "Tiny", (Run("table3", "One", "{NETWORK}", epochs=options.epochs),))
"""


def test_table3(insects: Path, weights: Path, tmp_path: Path, no_workers: None) -> None:
    from benchmarks import table3

    (tmp_path / "tiny.py").write_text(RECIPE)
    setting = table3.Setting(
        insects, weights, limit=60, rounds=1, epochs=2, networks=(NETWORK,), recipe=str(tmp_path / "tiny.py")
    )

    rows = table3.measure(setting)

    check_rows(rows)
    more = rows[0].more
    assert more["train"] + more["val"] <= 60
    product = math.prod(each["factor"] for each in more["factors"])
    first, last = more["factors"][0]["seconds"], more["factors"][-1]["seconds"]
    assert product == pytest.approx(first / last)
    assert last == rows[0].ours
    assert product == pytest.approx(rows[0].ratio)
    shares = [seconds for what, seconds in more["stages"].items() if what != "all"]
    assert sum(shares) == pytest.approx(rows[0].ours)


def test_errors_of_both_sides(insects: Path, weights: Path, no_workers: None) -> None:
    from benchmarks import errors

    rows = errors.run(quick=True, data=insects, weights_dir=weights, networks=(NETWORK,))

    check_rows(rows)
    for each in rows:
        assert each.ours - each.peer == pytest.approx(each.more["difference"])
        assert each.more["low"] <= each.more["difference"] <= each.more["high"]


def test_the_reference_trains_nothing_but_the_last_layer(insects: Path, weights: Path) -> None:
    import torch
    from benchmarks.reference import recipe, whole

    of = recipe(NETWORK, 4, weights, library="torchvision")
    before = {name: value.clone() for name, value in of.network.state_dict().items()}
    examples = [(path, label % 4) for label, path in enumerate(sorted(insects.rglob("0*.jpg"))[:8])]

    _, scores = whole(of, examples, examples[:3], 2, workers=0)

    after = of.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert scores.shape == (3, 4)


def test_hardware() -> None:
    from benchmarks import hardware as measured

    rows = measured.run(quick=True, networks=(NETWORK,))

    check_rows(rows)
    assert rows[0].more["disk_read_gb_per_second"] > 0


def test_tables() -> None:
    from benchmarks import tables as measured

    rows = measured.run(quick=True, photos=2000, classes=50)

    check_rows(rows)
    assert rows[0].more["photos"] == 2000


def test_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import decode as measured

    monkeypatch.setattr(measured, "SIZES", ((120, 90), (500, 375)))
    monkeypatch.setattr(measured, "SECONDS_A_TURN", 0.0)

    rows = measured.run(quick=True)

    check_rows(rows)
    assert all(each.more["difference"] <= 0.02 for each in rows if "exact" in each.what)


def test_finetune() -> None:
    from benchmarks import finetune as measured

    rows = measured.run(quick=True)
    check_rows(rows)
    steps, memory = rows[:-1], rows[-1:]
    assert {each.what for each in steps} == {"a step at 64 x 64, 4 photos"}
    assert all(each.what.startswith("peak memory with") for each in memory)


def test_findings(insects: Path) -> None:
    from benchmarks import findings as measured

    rows = measured.run(True, insects)
    check_rows(rows)
    assert all(0 <= each.ours <= 1 for each in rows)
    share = {each.what: each.ours for each in rows}
    assert share["halved copies that are proposed"] > 0.8


def test_few(insects: Path) -> None:
    from benchmarks import few as measured

    rows = measured.run(quick=True, data=insects)
    check_rows(rows)
    assert all(0 <= each.ours <= 1 for each in rows[:3])
    assert rows[0].more["low"] <= rows[0].more["difference"] <= rows[0].more["high"]


def test_unknown(insects: Path) -> None:
    from benchmarks import unknown as measured

    rows = measured.run(quick=True, data=insects)
    check_rows(rows)
    assert all(0 <= each.ours <= 1 for each in rows)
    assert {each.peer_name for each in rows} == {"energy", "highest probability"}


def test_store() -> None:
    from benchmarks import store as measured

    check_rows(measured.run(quick=True))


def test_memory() -> None:
    from benchmarks import memory as measured

    rows = measured.run(quick=True)
    check_rows(rows)
    assert [row.what for row in rows] == [
        *("peak memory of index, 300 photos", "peak memory of extract, 300 photos")
    ]


def test_pipeline(shared: Path) -> None:
    from benchmarks import pipeline as measured

    check_rows(measured.run(quick=True, names=(NETWORK,), engine="torch"))


def test_a_folder_is_predicted(shared: Path) -> None:
    from benchmarks import predict as measured

    (row,) = measured.run(quick=True)
    check_rows([row])
    assert row.more["share_of_bound"] > 0
    assert row.more["one_photo_s"] > 0


def test_cold_start() -> None:
    from benchmarks import cold_start as measured

    check_rows(measured.run(quick=True))


def test_labels_are_judged_in_a_process_of_its_own_and_its_memory_is_seen() -> None:
    from benchmarks import labels

    rows = [labels._memory(300, 10, 16)]

    check_rows(rows)
    assert 0.01 < rows[0].more["own"] <= rows[0].more["all"] < 8


def test_the_server_answers_the_clients_of_its_benchmark() -> None:
    """Each client is answered, and rightly: a request that is refused is no measurement."""
    measured = importlib.import_module("benchmarks.serve")
    rows = measured.run(quick=True)
    check_rows(rows)
    assert rows[-1].more["wrong"] == 0
    assert rows[-1].more["statuses"][200] > 0
