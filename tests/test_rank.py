"""Which network for these photos: LogME against the evidence itself, and the verb on small photos."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from fieldmark import cli
from fieldmark.data.split import split_photos
from fieldmark.data.subset import read
from fieldmark.evaluation import metrics
from fieldmark.experiments.model_ranking import RankConfig, _given, agreement, rank
from fieldmark.features.cache import Features
from fieldmark.features.labelled import LabelledFeatures
from fieldmark.heads.logme import logme
from fieldmark.utils.errors import InputError

SHUFFLE, SQUEEZE = "shufflenet_v2_x0_5", "squeezenet1_1"


def photos(count: int, dim: int, noise: float) -> LabelledFeatures:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, count)
    x_ND = rng.normal(size=(3, dim))[labels] + noise * rng.normal(size=(count, dim))
    names = tuple(f"p{at}" for at in range(count))
    return LabelledFeatures(Features.of(x_ND.astype(np.float32)), labels, names)


def slow(given: LabelledFeatures) -> float:
    """The evidence as the density of the targets, its two precisions set by a general optimiser."""
    x_ND = given.features[slice(None)].astype(np.float64)
    found = []
    for label in range(3):
        y_N = (given.labels == label).astype(float)

        def cost(logs: np.ndarray, y_N: np.ndarray = y_N) -> float:
            alpha, beta = np.exp(logs)
            covariance = np.eye(len(y_N)) / beta + x_ND @ x_ND.T / alpha
            density = scipy.stats.multivariate_normal(np.zeros(len(y_N)), covariance)
            return -float(density.logpdf(y_N))

        starts = [np.zeros(2), np.array([2.0, 3.0])]
        best = min(scipy.optimize.minimize(cost, at, method="Nelder-Mead").fun for at in starts)
        found.append(-best / len(y_N))
    return float(np.mean(found))


@pytest.mark.parametrize(("count", "dim"), [(60, 6), (25, 40)])
def test_logme_is_the_highest_evidence(count: int, dim: int) -> None:
    given = photos(count, dim, 0.8)
    assert logme(given, 3) == pytest.approx(slow(given), abs=2e-3)


def test_better_features_score_higher() -> None:
    scores = [logme(photos(120, 8, noise), 3) for noise in (0.3, 1.0, 3.0)]
    assert scores == sorted(scores, reverse=True)
    assert logme(photos(120, 8, 1.0).where(np.zeros(120, np.bool_)), 3) == -np.inf


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
    with pytest.raises(SystemExit) as leave:
        cli.main()
    assert not leave.value.code
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
        {"backbone": name, "ridge": {"error": at}, "ncm": {"error": -at}, "logme": -float(at)}
        for at, name in enumerate(names)
    ]
    study = {
        "rows": [
            {"backbone": name, "table": "networks", "val_top1_error": at / 9}
            for at, name in enumerate(names)
        ]
    }
    told = agreement({"networks": rows}, study)
    assert told["networks"] == 3
    assert [told[name] for name in ("ridge", "ncm", "logme")] == pytest.approx([1, -1, 1])
    with pytest.raises(InputError, match="at least three"):
        agreement({"networks": rows[:2]}, study)


def test_one_class_is_one_sentence(insects: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one").symlink_to(next(insects.iterdir()))
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
