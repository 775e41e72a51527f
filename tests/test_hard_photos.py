"""Photos that a check rejected because they are hard: never learned from, and still measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fieldmark.data import readers
from fieldmark.data.dataset import Dataset
from fieldmark.data.photos import HARD, PhotoTable
from fieldmark.data.split import split_photos
from fieldmark.training import TrainConfig, sentence, train
from fieldmark.training.strategies import folds, single
from fieldmark.utils.errors import ImageRejected, RejectReason

NETWORK = TrainConfig(backbone="shufflenet_v2_x0_5", weights="random", engine="torch")
HOLDOUT = replace(NETWORK, holdout=True, test=0.25, val=0.25)


@pytest.fixture
def table(insects: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> PhotoTable:
    """The insects, whose features need not be computed again."""
    monkeypatch.setenv("FIELDMARK_CACHE", str(model.parent / "cache"))
    return readers.read(insects)


def checked(table: PhotoTable, *, whole_class: bool = False) -> PhotoTable:
    """Every third photo is rejected as hard, of one class perhaps every photo."""
    ids = table.labelled["id"].sort().to_list()
    hard = ids[: len(ids) // 4] if whole_class else ids[::3]
    for number, reason in enumerate(HARD):
        table = table.reject(hard[number :: len(HARD)], reason)
    return table


@pytest.mark.parametrize("whole_class", [False, True])
@pytest.mark.parametrize("config", [NETWORK, HOLDOUT], ids=["folds", "holdout"])
def test_rejecting_hard_photos_measures_the_same_photos(
    table: PhotoTable, config: TrainConfig, whole_class: bool
) -> None:
    """Their number cannot fall, nor can the error by losing them; they are not learned from."""
    before, rejected = train(table, config), checked(table, whole_class=whole_class)
    now = train(rejected, config)
    assert set(now.evaluation.photo_ids) == set(before.evaluation.photo_ids)
    assert now.summary.photos == before.summary.photos
    assert not set(now.outcome.splits.train.ids) & set(rejected.hard)
    told, hard_N = now.summary.measurement, np.isin(now.evaluation.photo_ids, rejected.hard)
    assert told.photos == now.summary.photos
    assert told.hard == hard_N.sum() > 0
    wrong_N = now.evaluation.wrong_N()
    assert now.summary.top1_error_all_classes == pytest.approx(wrong_N.mean())
    assert told.error_without_hard == pytest.approx(wrong_N[~hard_N].mean())
    learned = now.outcome.splits.train if config.holdout else rejected.labelled
    assert told.learned == len(learned)
    if whole_class:
        assert wrong_N[hard_N].all()
        assert len(now.summary.per_class) == 3
    for text in (told.said, sentence(now.summary)):
        assert f"{told.hard} of these photos are hard" in text
    plain = before.summary.measurement
    assert (plain.hard, plain.error_without_hard) == (0, None)
    assert "hard" not in plain.said


def test_hard_photos_are_not_learned_from_after_the_measure(
    table: PhotoTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of very many photos a head is measured on a test part, then learned anew from all but hard ones."""
    seen: list[tuple[str, ...]] = []
    again = single.refit
    monkeypatch.setattr(folds, "_MOST_WORK", 0.0)
    monkeypatch.setattr(
        single,
        "refit",
        lambda best, known, *more, **how: (seen.append(known.ids), again(best, known, *more, **how))[1],
    )
    rejected = checked(table)
    done = train(rejected, NETWORK)
    assert set(seen[0]) == set(rejected.labelled["id"])
    assert done.summary.measurement.learned == len(seen[0]) == 42
    assert done.summary.measurement.hard > 0


def test_the_folder_and_the_report_say_how_many_are_hard(table: PhotoTable, tmp_path: Path) -> None:
    done = train(checked(table), NETWORK, out=tmp_path / "model")
    told = json.loads((tmp_path / "model" / "evaluation.json").read_text())["measurement"]
    assert (told["photos"], told["hard"], told["learned"]) == (64, 22, 42)
    assert told["error_without_hard"] == done.summary.measurement.error_without_hard
    assert "without 22 hard photos" in (tmp_path / "model" / "report.html").read_text()


def test_hard_photos_of_an_official_test_part_stay_in_it(table: PhotoTable) -> None:
    ids = table.labelled["id"].sort().to_list()
    official = pl.when(pl.col("id").is_in(ids[::4])).then(pl.lit("test"))
    table = table.with_frame(table.frame.with_columns(split=official))
    done = train(checked(table), NETWORK)
    assert set(done.evaluation.photo_ids) == set(ids[::4])
    assert done.summary.measurement.hard == len(set(ids[::4]) & set(ids[::3]))
    assert done.summary.measurement.learned == len(set(ids) - set(ids[::4]) - set(ids[::3]))


def test_a_split_is_the_same_with_hard_photos_rejected(table: PhotoTable) -> None:
    rejected = checked(table)
    split = split_photos(table, val=0.2, test=0.2)
    assert split == split_photos(rejected, val=0.2, test=0.2)
    parts = Dataset(rejected, split).splits
    hard = set(rejected.hard)
    assert not hard & {*parts.train.ids, *parts.val.ids}
    assert set(parts.test.ids) == set(split.test)
    assert set(parts.hard.ids) == hard - set(split.test)


def test_duplicates_and_unreadable_photos_are_not_measured(table: PhotoTable) -> None:
    """A photo that cannot be decoded is rejected for that, even if it was hard before."""
    one, two = table.labelled["id"].head(2)
    dark = table.reject([one], RejectReason.DARK.value)
    assert dark.reject([one], RejectReason.BLURRED.value).reasons()["dark"] == 1
    digest = table.labelled["sha256"][0]
    broken = dark.reject_files({digest: ImageRejected(RejectReason.CORRUPT)})
    assert broken.hard == []
    assert broken.reasons()["corrupt"] == 1
    assert table.reject([two], RejectReason.DUPLICATE.value).hard == []
