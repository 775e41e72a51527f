"""Calibration: against scipy and scikit-learn, and what must hold for any scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax as reference_log_softmax
from scipy.special import logsumexp
from scipy.stats import binomtest
from sklearn.metrics import log_loss

from fieldmark.data.taxonomy import Taxon, Taxonomy
from fieldmark.evaluation.calibration import (
    answers,
    coverage_curve,
    energy,
    fit_temperature,
    fit_threshold,
    fit_thresholds,
)
from fieldmark.evaluation.metrics import log_softmax


def answered(confidence_N: Any, right_N: Any, score: float) -> tuple[float, float]:
    """The coverage and precision of a threshold; precision is 1 where none is answered."""
    given = confidence_N >= score
    if not given.any():
        return 0.0, 1.0
    return float(given.mean()), float(right_N[given].mean())


def drawn(temperature: float, count: int = 4000, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times those from which the labels were really drawn."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 1.5, (count, classes))
    p = np.exp(reference_log_softmax(logits, axis=1))
    labels = np.array([rng.choice(classes, p=row) for row in p])
    return (logits * temperature).astype(np.float32), labels


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    p = np.exp(reference_log_softmax(logits.astype(np.float64) / temperature, axis=1))
    return float(log_loss(labels, p, labels=range(logits.shape[1])))


def test_log_softmax_of_a_class_that_is_not_learned() -> None:
    log_p = log_softmax(np.array([[0.0, -np.inf, 0.0]], np.float32))
    np.testing.assert_allclose(log_p, [[-np.log(2), -np.inf, -np.log(2)]], rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_is_the_one_the_labels_were_drawn_with(temperature: float) -> None:
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.08)


def penalised(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """The loss of all photos, and how far log T is from what is expected of it: N(0, 0.5^2)."""
    prior = np.log(temperature) ** 2 / (2 * 0.5**2)
    return len(labels) * nll(logits, labels, temperature) + float(prior)


@pytest.mark.parametrize("count", [4, 300])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_is_scipys(temperature: float, count: int) -> None:
    logits, labels = drawn(temperature, count=count)
    peer = minimize_scalar(
        lambda log_t: penalised(logits, labels, np.exp(log_t)),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
        options={"xatol": 1e-7},
    )
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(np.exp(peer.x), rel=1e-3)
    assert penalised(logits, labels, found) <= peer.fun + 1e-5


@given(
    arrays(np.float32, (9, 3), elements=st.integers(-3000, 3000).map(lambda n: n / 100)),
    arrays(np.int64, 9, elements=st.integers(-1, 2)),
)
def test_a_temperature_never_makes_it_worse_and_changes_no_ranking(s_NC: np.ndarray, y_N: np.ndarray) -> None:
    temperature = fit_temperature(s_NC, y_N)
    assert 0.05 <= temperature <= 20
    known = y_N >= 0
    if known.any():
        before, after = nll(s_NC[known], y_N[known], 1.0), nll(s_NC[known], y_N[known], temperature)
        assert after <= before + 1e-6
    order = np.argsort(s_NC / np.float32(temperature), axis=1, kind="stable")
    np.testing.assert_array_equal(np.take_along_axis(s_NC, order, 1), np.sort(s_NC, axis=1, kind="stable"))


@pytest.mark.parametrize("photos", [1, 3])
def test_a_handful_of_right_photos_does_not_make_every_answer_certain(photos: int) -> None:
    """Their loss alone would be lowest at the lowest temperature there is."""
    logits = np.zeros((photos, 4), np.float32)
    logits[:, 1] = 2.0
    labels = np.ones(photos, np.int64)
    assert nll(logits, labels, 0.05) < nll(logits, labels, 0.5)
    assert 0.5 < fit_temperature(logits, labels) < 1
    assert 1 < fit_temperature(logits, 1 + labels) < 4  # all wrong


def test_the_more_photos_the_less_is_expected_of_the_temperature() -> None:
    logits, labels = drawn(4.0)

    def mean(count: int) -> float:
        parts = [slice(at, at + count) for at in range(0, min(len(labels), 50 * count), count)]
        return float(np.mean([np.log(fit_temperature(logits[part], labels[part])) for part in parts]))

    assert 0 < mean(2) < mean(20) < mean(4000)
    assert mean(2) < np.log(2)


def test_photos_of_one_group_count_once_in_the_temperature() -> None:
    logits, labels = drawn(2.5, count=30)
    names = [f"group {at}" for at in range(30)]
    alone = fit_temperature(logits, labels)
    assert fit_temperature(logits, labels, names) == pytest.approx(alone)
    often = np.repeat(np.arange(30), np.arange(30) % 7 + 1)
    groups = [names[at] for at in often]
    assert fit_temperature(logits[often], labels[often], groups) == pytest.approx(alone, rel=1e-5)
    assert fit_temperature(logits[often], labels[often]) != pytest.approx(alone, rel=1e-2)
    one = fit_temperature(np.repeat(logits[:1], 50, axis=0), np.repeat(labels[:1], 50), ["one"] * 50)
    assert one == pytest.approx(fit_temperature(logits[:1], labels[:1]), rel=1e-5)


def test_photos_of_no_class_say_nothing_of_the_temperature() -> None:
    logits, labels = drawn(2.0, count=200)
    with_others = np.concatenate([labels, np.full(50, -1)])
    more = np.concatenate([logits, np.full((50, 6), 1e3, np.float32)])
    assert fit_temperature(more, with_others) == fit_temperature(logits, labels)
    assert fit_temperature(more[200:], with_others[200:]) == 1.0
    assert fit_temperature(logits[:0], labels[:0]) == 1.0


SCORES = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.50001, 0.9, 1.0]), st.booleans()), max_size=30)


def lower(right: int, photos: int) -> float:
    """The lower end of the exact one-sided 90 % interval of a share of independent photos."""
    return binomtest(right, photos, alternative="greater").proportion_ci(0.9, method="exact").low


@given(SCORES, st.floats(0.0, 1.0))
def test_what_a_threshold_promises_is_the_lower_end_of_an_interval(
    photos: list[tuple[float, bool]], precision: float
) -> None:
    confidence = np.array([score for score, _ in photos], np.float32)
    right = np.array([each for _, each in photos], bool)
    found = fit_threshold(confidence, right, precision)
    given = confidence >= found.score
    assert found.precision == precision
    assert found.coverage == pytest.approx(given.mean() if len(given) else 0.0)
    ends = {}  # of each place to cut: photos with the same score are answered together
    for score in np.unique(confidence):
        more = confidence >= score
        ends[float(score)] = lower(int(right[more].sum()), int(more.sum())), right[more].mean()
    if not given.any():
        assert found.promised is None
        assert found.score > 1
        assert all(low < precision for low, _ in ends.values())
        return
    assert found.promised is not None
    assert right[given].mean() >= precision
    assert found.promised == pytest.approx(min(precision, ends[found.score][0]))
    if found.promised < precision:  # too few photos to show it: a place that their labels do not decide
        needed = min(np.log(0.1) / np.log(precision) if precision < 1 else np.inf, len(photos) / 2)
        place = next(s for s in sorted(ends, reverse=True) if (confidence >= s).sum() >= needed)
        assert found.score in (np.float32(place), np.float32(min(ends)))
    else:  # the next score below would not have done
        below = [score for score in ends if score < found.score]
        assert not below or ends[max(below)][0] < precision


def test_where_no_score_is_good_enough_nothing_is_promised() -> None:
    found = fit_threshold(np.array([1.0, 0.9], np.float32), np.array([False, True]))
    assert found.score > 1
    assert found.coverage == 0
    assert found.promised is None
    assert answered(np.array([1.0, 0.5], np.float32), np.array([True, False]), found.score) == (0, 1)


def test_a_threshold_on_no_photos() -> None:
    nothing = np.array([], np.float32)
    found = fit_threshold(nothing, nothing.astype(bool))
    assert found.coverage == 0
    assert found.promised is None
    assert answered(nothing, nothing.astype(bool), 0.5) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("photos", "promised"), [(3, 0.1 ** (1 / 3)), (10, 0.1**0.1), (44, 0.949), (45, 0.95)]
)
def test_right_photos_promise_what_so_many_can_show(photos: int, promised: float) -> None:
    """Forty-five right answers show 95 %; three show 46 %, however sure they look."""
    confidence = np.linspace(0.8, 0.9, photos).astype(np.float32)
    found = fit_threshold(confidence, np.ones(photos, bool))
    assert found.promised == pytest.approx(promised, abs=1e-4)
    assert found.coverage == 1


def test_photos_of_one_group_promise_no_more_than_one() -> None:
    confidence, right = np.linspace(0.8, 0.9, 60).astype(np.float32), np.ones(60, bool)
    alone = fit_threshold(confidence[:6], right[:6])
    groups = [f"group {at % 6}" for at in range(60)]
    assert fit_threshold(confidence, right, 0.95, groups).promised == pytest.approx(alone.promised)
    assert fit_threshold(confidence, right, 0.95, ["one"] * 60).promised == pytest.approx(0.1)
    assert fit_threshold(confidence, right, 0.95).promised == 0.95


def steep(score: np.ndarray) -> np.ndarray:
    """Scores that tell little below 0.5 and nearly all above 0.7."""
    return 1 / (1 + np.exp(-15 * (score - 0.5)))


def flat(score: np.ndarray) -> np.ndarray:
    """Scores that tell nothing."""
    return np.full(len(score), 0.9)


@pytest.mark.parametrize(
    ("photos", "group", "chance"),
    [
        *((20, 1, steep), (60, 1, np.positive), (60, 5, steep)),
        *((200, 1, np.positive), (200, 5, np.positive), (200, 1, flat)),
    ],
)
def test_what_is_promised_holds_on_new_photos(photos: int, chance: Any, group: int) -> None:
    """A promise is broken in one repetition of ten at most, or hardly more: the score is one of several."""
    random, broken = np.random.default_rng([photos, group, 3]), 0
    every = np.linspace(0.3, 1, 5001)
    for _ in range(200):
        score_U = random.uniform(0.3, 1, photos // group)
        right_U = random.random(len(score_U)) < chance(score_U)
        shown_N = np.repeat(score_U, group) + random.uniform(-1e-3, 1e-3, photos)
        groups = [str(at) for at in np.repeat(np.arange(len(score_U)), group)]
        found = fit_threshold(shown_N.astype(np.float32), np.repeat(right_U, group), 0.95, groups)
        if found.promised is None:
            assert found.score > 1
        elif (every >= found.score).any():
            broken += chance(every[every >= found.score]).mean() < found.promised
    assert broken <= 0.12 * 200


LEVELS = Taxonomy(
    Taxon(str(at), f"{genus} {at}", ranks={"kingdom": kingdom, "genus": genus} if genus else {})
    for at, (kingdom, genus) in enumerate(
        [("A", "Aa"), ("A", "Aa"), ("A", "Ab"), ("B", "Ba"), ("B", "Ba"), ("", "")]
    )
).levels


@given(st.integers(0, 2**32 - 1), st.integers(0, 400), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_at_each_rank_the_answers_given_are_as_often_right_as_asked(
    seed: int, photos: int, precision: float
) -> None:
    rng = np.random.default_rng(seed)
    p_NC = np.exp(log_softmax(rng.normal(0, 2, (photos, 6)))).astype(np.float32)
    y_N = np.array([rng.choice(6, p=np.float64(p) / np.float64(p).sum()) for p in p_NC], np.int64)
    y_N[rng.random(photos) < 0.05] = -1
    found = fit_thresholds(p_NC, y_N, LEVELS, precision)
    assert list(found) == ["species", "genus", "kingdom"]
    done = answers(p_NC, y_N, LEVELS, found)
    times = np.sum([given for given, _ in done.values()], axis=0)
    assert (times <= 1).all() if photos else True
    left = photos
    for rank, (named, right) in done.items():
        if photos:
            assert found[rank].coverage == pytest.approx(named.mean())
        if rank == "species" or left >= 20:
            assert not named.any() or right[named].mean() >= precision
        else:
            assert found[rank].score == (precision if photos else 1.01)
        left -= int(named.sum())


def test_the_right_genus_is_a_right_answer_and_a_label_without_one_never_is() -> None:
    p_NC = np.array([[0.45, 0.5, 0.05, 0, 0, 0]] * 3, np.float32)
    found = fit_thresholds(p_NC, np.array([0, 0, 5]), LEVELS, 0.6)
    assert found["species"].score > 1
    done = answers(p_NC, np.array([0, 0, 5]), LEVELS, found)
    assert [each.tolist() for each in done["genus"]] == [[True] * 3, [True, True, False]]
    assert not done["kingdom"][0].any()


@given(SCORES, st.integers(1, 25))
def test_coverage_against_precision(photos: list[tuple[float, bool]], steps: int) -> None:
    confidence = np.array([score for score, _ in photos], np.float32)
    right = np.array([each for _, each in photos], bool)
    curve = coverage_curve(confidence, right, steps)
    assert len(curve) <= steps
    assert bool(curve) == bool(photos)
    for point in curve:
        assert (point["coverage"], point["precision"]) == answered(confidence, right, point["score"])
    if curve:
        assert curve[-1]["coverage"] == 1
        assert [point["coverage"] for point in curve] == sorted({p["coverage"] for p in curve})


def test_the_energy_is_scipys_log_sum_exp() -> None:
    logits = np.random.default_rng(0).normal(0, 50, (20, 7)).astype(np.float32)
    logits[0, 3] = -np.inf  # a class that was never learned
    np.testing.assert_allclose(energy(logits), logsumexp(logits, axis=1), rtol=1e-5)
