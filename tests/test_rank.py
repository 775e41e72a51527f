"""The ranking of networks: its correlation with studies, and the command on small photos."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from fieldmark import cli
from fieldmark.data.split import split_photos
from fieldmark.data.subset import read
from fieldmark.evaluation import metrics
from fieldmark.experiments import model_ranking
from fieldmark.experiments.model_ranking import NetworkRanking, RankConfig, _given, agreement, rank
from fieldmark.experiments.records import StudyRecord
from fieldmark.utils.errors import InputError

SHUFFLE, SQUEEZE = "shufflenet_v2_x0_5", "squeezenet1_1"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=20))
def test_the_rank_correlation_is_spearmans(pairs: list[tuple[int, int]]) -> None:
    one, other = (np.array(each, np.float64) for each in zip(*pairs, strict=True))
    ours = metrics.rank_correlation(one, other)
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(scipy.stats.spearmanr(one, other).statistic)


def test_networks_are_ranked_and_random_ones_marked(
    insects: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["rank", insects, "--network", SHUFFLE, "--network", SQUEEZE, "--engine", "torch"]
    monkeypatch.setattr(sys, "argv", ["fieldmark", *map(str, arguments), "--json"])
    cli.main()
    found = json.loads(capsys.readouterr().out)
    assert found["photos"] == 58  # those of 64 that `train` would not measure on
    assert found["classes"] == 4
    errors = [row["ridge"]["error"] for row in found["networks"]]
    assert errors == sorted(errors)
    for row in found["networks"]:
        assert row["weights"] == "random"
        assert not row["weights_complete"]
        assert row["ridge"]["interval"][0] <= row["ridge"]["error"] <= row["ridge"]["interval"][1]


def test_agreement_needs_three_networks() -> None:
    names = ("a", "b", "c")
    rows = [
        {"backbone": name, "ridge": {"error": at}, "ncm": {"error": -at}} for at, name in enumerate(names)
    ]
    study = {
        "rows": [
            {"backbone": name, "table": "networks", "val_top1_error": at / 9} for at, name in enumerate(names)
        ]
    }
    ranking = {"photos": 9, "classes": 2, "networks": rows}
    trained = StudyRecord.from_dict(study)
    told = agreement(NetworkRanking.from_dict(ranking), trained)
    assert told["networks"] == 3
    assert [told[name] for name in ("ridge", "ncm")] == pytest.approx([1, -1])
    with pytest.raises(InputError, match="at least three"):
        agreement(NetworkRanking.from_dict(ranking | {"networks": rows[:2]}), trained)


def test_one_class_is_one_sentence(insects: Path, tmp_path: Path) -> None:
    shutil.copytree(next(insects.iterdir()), tmp_path / "photos" / "one")
    with pytest.raises(InputError):
        rank(tmp_path / "photos", RankConfig((SHUFFLE,), engine="torch"))


@pytest.mark.parametrize("limit", [None, 1000, 40, 20])
def test_what_training_will_be_measured_on_has_no_say(insects: Path, limit: int | None) -> None:
    """Whatever the limit: photos of the test part of `train` rank nothing."""
    table = read(insects, limit=None, seed=3)
    test = set(split_photos(table, val=0.1, test=0.1, seed=3).test)
    given, split = _given(insects, RankConfig(limit=limit, seed=3))
    used = {*split.rows(given, "train")["id"], *split.rows(given, "val")["id"]}
    assert test
    assert not used & test
    rest = {*table.labelled["id"]} - test
    assert used <= rest
    assert len(used) == min(limit or 1000, len(rest))


def test_networks_are_judged_by_new_places(
    insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No location is in two folds, nor in the test part that `train` would measure on."""
    rows = [
        {"file_name": str(path), "label": path.parent.name, "location": f"station {number % 6}"}
        for number, path in enumerate(sorted(insects.glob("*/[0-9]*.jpg")))
    ]
    table = tmp_path / "photos.csv"
    pl.DataFrame(rows).write_csv(table)
    place = {row["file_name"]: row["location"] for row in rows}
    folds: list[list[str]] = []
    whole = model_ranking.out_of_fold_logits

    def seen(fit: object, labelled: object, photos: object, *more: object) -> object:
        folds.append(list(photos.groups))
        assert [place[str(file.path)] for file in photos.files] == folds[-1]
        return whole(fit, labelled, photos, *more)

    monkeypatch.setattr(model_ranking, "out_of_fold_logits", seen)
    found = rank(table, RankConfig((SHUFFLE,), engine="torch", split="location", groups="none"))
    assert len(folds) == 2
    assert found.photos < 64  # a whole station is kept for the test of `train`
    assert len(set(folds[0])) == 5
    with pytest.raises(InputError, match="no photo has a location"):
        rank(insects, RankConfig((SHUFFLE,), engine="torch", split="location"))


def test_networks_are_judged_by_the_crops_of_boxes(insects: Path, tmp_path: Path) -> None:
    """Each box is a photo of its own, and no part divides those of one photo."""
    names = [str(path.relative_to(insects)) for path in sorted(insects.glob("*/[0-9]*.jpg"))]
    found = [f"{name},{left},0,0.5,1,{sure}" for name in names[:-1] for left, sure in ((0, 0.9), (0.5, 0.3))]
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("\n".join(["file_name,left,top,width,height,confidence", *found]))

    _, split = _given(insects, RankConfig(boxes=boxes))
    part_of = dict(split.frame.select("id", "part").iter_rows())
    assert len(part_of) == 2 * (len(names) - 1)
    assert all(part == part_of[f"{box.rpartition('#')[0]}#1"] for box, part in part_of.items())

    ranked = rank(insects, RankConfig((SHUFFLE,), engine="torch", boxes=boxes, box_threshold=0.5))
    assert ranked.photos == 57  # those of 63 that `train` would not measure on
    with pytest.raises(InputError, match="without boxes"):
        _given(insects, RankConfig(box_threshold=0.5))
