"""Networks trained within a time, what is kept of them, and what is taken beside last layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldmark import models
from fieldmark.data.photos import PhotoFile
from fieldmark.data.split import split_photos
from fieldmark.data.subset import DataSplits, LabelledPhotos, read
from fieldmark.data.transforms import PAPER_CROP
from fieldmark.features.extraction import Extraction
from fieldmark.features.extractor import FeatureExtractor
from fieldmark.heads.base import LinearHead
from fieldmark.training import finetune
from fieldmark.training.automl import (
    Budget,
    Candidate,
    TrialResult,
    candidates,
    finetune_search,
    training_and_validation,
)
from fieldmark.training.automl.finetune_search import FineTuningSearch
from fieldmark.training.automl.selection import (
    choose_option,
    groups_of,
    loss_differences,
    options,
    options_with_fine_tuned,
)
from fieldmark.training.automl.summary import lines, table
from fieldmark.training.finetune import Pace
from fieldmark.training.finetune.checkpoint import TrainingState
from fieldmark.training.strategies.ensemble import SearchOutcome
from fieldmark.utils import memory

NETWORK = "shufflenet_v2_x0_5"


class Clock:
    """Time that passes only when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def given(insects: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Candidate, DataSplits]:
    """One network, trained in one way for one epoch; features that cost nothing."""
    monkeypatch.setattr(finetune_search, "NOTES", {"adapters": finetune_search.NOTES["adapters"]})
    monkeypatch.setattr(finetune_search, "cost_of", lambda *_: None)
    table = read(insects, limit=None, seed=0)
    parts = DataSplits.of(table, split_photos(table, val=0.2, test=0.2, seed=0, way="stratified"))
    network = models.load(NETWORK, weights="random")
    (candidate,) = candidates([network], FeatureExtractor(PAPER_CROP, engine="torch"), all_views=False)
    candidate.extractor.compute(parts.files, {NETWORK: network})
    return candidate, parts


def test_networks_are_trained_in_half_precision_where_that_is_wanted(given: Any) -> None:
    candidate, parts = given
    runs = [
        finetune_search._FineTuningRun(
            FineTuningSearch(parts, 0, Budget(None), bfloat16=half), candidate, "adapters"
        )
        for half in (False, True)
    ]
    assert [run.recipe.precision for run in runs] == ["float32", "bfloat16"]
    assert runs[0].cache_path != runs[1].cache_path  # what is kept of one is not taken for the other's


# Time


@pytest.mark.parametrize(("seconds", "epochs"), [(None, 6), (1000.0, 6), (60.0, 4), (50.0, 3), (30.0, None)])
def test_as_many_epochs_as_the_time_allows(
    given: Any, monkeypatch: pytest.MonkeyPatch, seconds: float | None, epochs: int | None
) -> None:
    """An epoch takes 10 s, a tenth more is expected, and 15 % of the budget are left alone."""
    candidate, parts = given
    how_long: list[int] = []
    monkeypatch.setattr(finetune, "pace", lambda *_: Pace(dict.fromkeys((192, 224), 10.0), 224))

    def trained(self: Any, how: finetune.FineTuning) -> Any:
        how_long.append(how.epochs)
        return self.model

    monkeypatch.setattr(finetune_search._FineTuningRun, "trained", trained)
    doing = FineTuningSearch(parts, 0, Budget(seconds, Clock()))
    doing.try_all([candidate])
    if epochs is None:
        assert not doing.results
        (why,) = doing.skipped
        assert why == (
            f"{NETWORK}, biases and normalisations trained: not tried, 3 epochs would take about "
            "33 s and 26 s are left"
        )
    else:
        assert how_long == [epochs]
        assert [each.name for each in doing.results] == [f"{NETWORK}, biases and normalisations trained"]
        assert not doing.skipped


def test_what_cannot_fit_is_not_even_timed(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate, parts = given
    monkeypatch.setattr(finetune_search, "cost_of", lambda *_: 1.0)

    def never(*_: object) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr(finetune, "pace", never)
    doing = FineTuningSearch(parts, 0, Budget(100.0, Clock()))
    doing.try_all([candidate])
    learn = int((~doing.fold.measure).sum())
    (why,) = doing.skipped
    assert f"would take about {9 * learn + len(parts.files)} s and 85 s are left" in why


def test_what_does_not_fit_into_the_memory_is_left_out(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate, parts = given
    monkeypatch.setattr(memory, "available", lambda: 2**20)
    monkeypatch.setattr(finetune, "pace", lambda *_: pytest.fail("timed, which takes the memory"))
    doing = FineTuningSearch(parts, 0, Budget(None, Clock()))
    doing.try_all([candidate])
    (why,) = doing.skipped
    assert "trained: not tried, Fine-tuning would take about" in why
    assert why.endswith("and 1 MiB is available.")
    assert "--" not in why, "best has none of these options"


def test_what_was_given_up_or_cut_off_goes_on_to_the_same_network(
    given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of time in its second update, then broken off in its third; the third run ends it."""
    candidate, parts = given
    monkeypatch.setattr(finetune, "pace", lambda *_: Pace(dict.fromkeys((192, 224), 1.0), 224))
    monkeypatch.setattr(finetune_search, "FEWEST", 2)
    monkeypatch.setattr(finetune_search, "EPOCHS", 2)
    updates, after_update = [], TrainingState.after_update

    def run(stop_at: int | None = None, cut_at: int | None = None) -> FineTuningSearch:
        clock = Clock()
        updates.clear()

        def counted(self: TrainingState, loss: float, photos: int) -> None:
            after_update(self, loss, photos)
            updates.append(photos)
            if len(updates) == stop_at:
                clock.now += 1000
            if len(updates) == cut_at:
                self.save()
                raise KeyboardInterrupt

        monkeypatch.setattr(TrainingState, "after_update", counted)
        doing = FineTuningSearch(parts, 0, Budget(100.0, clock))
        doing.try_all([candidate])
        return doing

    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "whole"))
    (whole,) = run().results
    every = len(updates)
    assert every >= 4
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cut"))
    given_up = run(stop_at=2)
    assert not given_up.results
    (why,) = given_up.skipped
    assert "stopped after 1,000 s, 2 s were expected" in why
    with pytest.raises(KeyboardInterrupt):
        run(cut_at=1)
    (done,) = run().results
    assert len(updates) == every - 3
    np.testing.assert_array_equal(done.logits_NC, whole.logits_NC)
    np.testing.assert_array_equal(done.head.weight, whole.head.weight)
    left = sorted(path.suffix for path in (tmp_path / "cut" / "tuned").iterdir())
    assert left == [".safetensors", ".sha256"]
    # Once it is done it is only read.
    (again,) = run().results
    assert not updates
    np.testing.assert_array_equal(again.logits_NC, whole.logits_NC)


def test_kept_networks_that_are_damaged_are_trained_anew(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate, parts = given
    doing = FineTuningSearch(parts, 0, Budget(None))
    run = finetune_search._FineTuningRun(doing, candidate, "adapters")
    run.cache_path.parent.mkdir(parents=True)
    run.cache_path.write_bytes(b"nothing")
    assert run.kept() is None


# Choosing


def photos(count: int, prefix: str) -> LabelledPhotos:
    ids = tuple(f"{prefix}{number}" for number in range(count))
    taxa = tuple("abc"[number % 3] for number in range(count))
    nowhere = (PhotoFile("", Path()),) * count
    return LabelledPhotos(ids, nowhere, taxa, (None,) * count, ("",) * count)


@pytest.fixture
def parts() -> DataSplits:
    return DataSplits(photos(300, "t"), photos(60, "v"), photos(0, "e"), ("a", "b", "c"))


class _Network:
    """As much of a candidate as its cost takes."""

    def __init__(self, name: str, macs: float) -> None:
        self.name, self.view, self.extractor = name, name, None
        self.backbone = type("B", (), {})()
        self.backbone.key = name
        self.backbone.architecture = type("A", (), {"giga_macs": macs})()


def tried(
    parts: DataSplits, name: str, macs: float, sure: float, rows_N: Any = None, seed: int = 0, **more: Any
) -> TrialResult:
    """A candidate that is right the more often the surer."""
    labels_N = training_and_validation(parts).labels(parts.classes)
    noise_NC = np.random.default_rng(seed).normal(size=(len(labels_N), 3))
    logits_NC = (noise_NC + sure * np.eye(3)[labels_N]).astype(np.float32)
    if rows_N is not None:
        logits_NC, labels_N = logits_NC[rows_N], labels_N[rows_N]
    network: Any = _Network(name, macs)
    head = LinearHead(np.zeros((2, 3), np.float32), np.zeros(3, np.float32))
    return TrialResult.of(network, "", head, logits_NC, labels_N, rows_N=rows_N, **more)


@pytest.fixture
def no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldmark.training.automl.selection.cost_of", lambda *_: None)


@pytest.mark.usefixtures("no_rates")
@pytest.mark.parametrize(
    ("sure", "macs", "taken"),
    [
        (6.0, 9.0, "tuned"),  # better by far: taken though it costs more
        (2.0, 0.1, "tuned"),  # as good, and cheaper: a tie keeps the cheaper
        (2.0, 9.0, "plain"),  # as good, and dearer
        (0.5, 0.1, "plain"),  # worse, however cheap
    ],
)
def test_a_trained_network_is_taken_where_it_is_better_or_ties_and_costs_less(
    parts: DataSplits, sure: float, macs: float, taken: str
) -> None:
    fold = FineTuningSearch(parts, 0, Budget()).fold
    found = [tried(parts, "plain", 1.0, 2.0), tried(parts, "weak", 1.0, 0.2, seed=1)]
    tuned = [tried(parts, "tuned", macs, sure, fold.measure, seed=0)]
    made = options(found, parts, 0, {})
    first, _ = choose_option(made, loss_differences(made, groups_of(parts), 0))
    assert first.name == "plain"
    beside = options_with_fine_tuned(first, found, tuned, parts, 0)
    groups = groups_of(parts, tuned)
    count = int(fold.measure.sum())
    assert {len(each.losses_N) for each in beside} == {len(groups)} == {count}
    assert {each.name for each in beside} == {"plain", "tuned", "plain with tuned"}
    # On the same photos it has what it had among the others there.
    (same,) = [each for each in beside if each.name == "plain"]
    np.testing.assert_allclose(same.losses_N, first.losses_N[fold.measure], rtol=1e-5)
    rise = loss_differences(beside, groups, 0)
    option, _ = choose_option(beside, rise)
    assert option.name == taken
    assert len(option.weights_M) == 3
    reference = next(each for each in beside if each.name == "plain")
    rows = table(beside, rise, option, reference, [*found, *tuned], groups, 0)
    assert [row.why for row in rows if row.taken] == ["chosen"]
    assert all(row.why for row in rows)
    assert len(list(lines(rows))) == 3


@pytest.mark.usefixtures("no_rates")
def test_what_both_never_saw_sets_the_thresholds(parts: DataSplits) -> None:
    measure = FineTuningSearch(parts, 0, Budget()).fold.measure
    plain, tuned = tried(parts, "a", 1, 2), tried(parts, "b", 1, 2, measure, seed=1)
    made = options([plain], parts, 0, {})
    option = replace(made[0], weights_M=np.array([0.3, 0.7]))
    logits, labels_N = SearchOutcome(option, "", [], [], [], [plain, tuned], Extraction()).held_out(parts)
    np.testing.assert_array_equal(logits[0], tuned.logits_NC)
    np.testing.assert_array_equal(logits[1], plain.logits_NC[measure])
    assert len(labels_N) == measure.sum()


@pytest.mark.usefixtures("no_rates")
def test_the_plain_mean_counts_each_view_alike(parts: DataSplits) -> None:
    from fieldmark.evaluation import ensemble

    found = [tried(parts, "a", 1, 2), tried(parts, "b", 1, 2, seed=1)]
    found.append(tried(parts, "a", 1, 1.9, seed=2, variant=True))
    made = options(found, parts, 0, {"mean": ensemble.mean, "weights": ensemble.weights})
    (mean,) = [each for each in made if each.name == "mean ensemble"]
    assert mean.weights_M.tolist() == [0.5, 0.5, 0.0]
