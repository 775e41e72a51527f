"""Each metric against an independent reference: scikit-learn, SciPy, or a sum written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax as scipy_log_softmax
from sklearn.metrics import (
    brier_score_loss,
    confusion_matrix,
    log_loss,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from fieldmark.evaluation import calibration, metrics

CLASSES = 6


def sample(photos: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits in which the right class is somewhat higher."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, photos)
    scores = random.normal(size=(photos, CLASSES)) * 2
    scores[np.arange(photos), labels] += 1.5
    return scores.astype(np.float32), labels


def test_log_softmax_is_scipys_and_leaves_log_probabilities_alone() -> None:
    scores, _ = sample()
    ours = metrics.log_softmax(scores)
    np.testing.assert_allclose(ours, scipy_log_softmax(scores.astype(np.float64), axis=1))
    np.testing.assert_allclose(metrics.log_softmax(ours), ours)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_error_is_scikit_learns(k: int) -> None:
    scores, labels = sample()
    reference = 1 - top_k_accuracy_score(labels, scores, k=k, labels=range(CLASSES))
    assert metrics.top_k_error(scores, labels, k) == pytest.approx(reference)


def test_a_place_shared_by_equal_scores_goes_to_the_first_column() -> None:
    scores = np.array([[1.0, 1.0, 0.0]])
    assert metrics.ranks(scores, np.array([0])).tolist() == [0]
    assert metrics.ranks(scores, np.array([1])).tolist() == [1]


@given(
    hnp.arrays(np.float32, (7, 4), elements=st.floats(-5, 5, width=32)),
    hnp.arrays(np.int64, (7,), elements=st.integers(0, 3)),
)
def test_top_1_agrees_with_argmax_and_top_c_is_never_wrong(scores: np.ndarray, labels: np.ndarray) -> None:
    np.testing.assert_array_equal(metrics.wrong(scores, labels), scores.argmax(1) != labels)
    assert metrics.top_k_error(scores, labels, 4) == 0


def test_scores_that_are_not_numbers_are_wrong_whatever_k() -> None:
    scores = np.array([[np.nan, np.nan], [np.nan, 1.0], [0.0, 1.0]])
    assert metrics.wrong(scores, np.array([0, 1, 1])).tolist() == [True, True, False]
    assert metrics.wrong(scores, np.array([0, 0, 1]), 2).tolist() == [True, True, False]


def test_k_must_be_positive() -> None:
    scores, labels = sample()
    with pytest.raises(ValueError, match="at least 1"):
        metrics.wrong(scores, labels, 0)


def test_per_class_and_macro_error_are_scikit_learns_recall() -> None:
    scores, labels = sample()
    predicted = scores.argmax(1)
    error, photos = metrics.per_class_error(predicted != labels, labels, CLASSES)
    np.testing.assert_allclose(1 - error, recall_score(labels, predicted, average=None))
    np.testing.assert_array_equal(photos, np.bincount(labels, minlength=CLASSES))
    macro = 1 - recall_score(labels, predicted, average="macro")
    assert metrics.macro_average(error) == pytest.approx(macro)


def test_a_class_without_photos_is_no_part_of_the_macro_average() -> None:
    error, photos = metrics.per_class_error(np.array([1, 0, 1]), np.array([0, 0, 2]), 4)
    np.testing.assert_array_equal(error, [0.5, np.nan, 1.0, np.nan])
    assert photos.tolist() == [2, 0, 1, 0]
    assert metrics.macro_average(error) == 0.75


def test_per_group_error() -> None:
    found = metrics.per_group_error(np.array([1, 0, 1, 1]), ["b", "a", "b", "a"])
    assert found == {"a": (0.5, 2), "b": (1.0, 2)}
    assert list(found) == ["a", "b"]


def test_negative_log_likelihood_and_brier_score_are_scikit_learns() -> None:
    scores, labels = sample()
    probabilities = np.exp(metrics.log_softmax(scores))
    columns = list(range(CLASSES))
    assert metrics.negative_log_likelihood(scores, labels) == pytest.approx(
        log_loss(labels, probabilities, labels=columns)
    )
    assert metrics.brier_score(scores, labels) == pytest.approx(
        brier_score_loss(labels, probabilities, labels=columns, scale_by_half=False)
    )


def test_reliability_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.95, 0.05], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])
    labels = np.array([0, 1, 1, 0, 0])
    found = metrics.reliability(np.log(probabilities), labels, bins=5)
    assert [(one.photos, round(one.low, 9), round(one.high, 9)) for one in found] == [
        (1, 0.4, 0.6),  # 0.6 itself: the bins are open below and closed above
        (2, 0.6, 0.8),
        (2, 0.8, 1.0),
    ]
    assert [one.accuracy for one in found] == [1.0, 0.5, 0.5]
    assert [one.confidence for one in found] == pytest.approx([0.6, 0.75, 0.925])
    expected = (1 * 0.4 + 2 * 0.25 + 2 * 0.425) / 5
    assert metrics.expected_calibration_error(np.log(probabilities), labels, bins=5) == pytest.approx(
        expected
    )


def test_calibration_error_written_out() -> None:
    scores, labels = sample(1000)
    probabilities = np.exp(scipy_log_softmax(scores.astype(np.float64), axis=1))
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    total = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            total += abs((predicted == labels)[inside].mean() - confidence[inside].mean()) * (inside.mean())
    assert metrics.expected_calibration_error(scores, labels) == pytest.approx(total)


def test_confusion_pairs_are_the_highest_cells_off_the_diagonal() -> None:
    scores, labels = sample()
    matrix = confusion_matrix(labels, scores.argmax(1))
    np.fill_diagonal(matrix, 0)
    found = metrics.confusion_pairs(scores.argmax(1), labels, limit=4)
    assert [one.photos for one in found] == sorted(matrix.ravel(), reverse=True)[:4]
    assert all(matrix[one.true, one.predicted] == one.photos for one in found)
    everything = metrics.confusion_pairs(scores.argmax(1), labels, limit=99)
    assert sum(one.photos for one in everything) == matrix.sum()
    assert metrics.confusion_pairs(labels, labels) == []


def test_no_measure_depends_on_how_many_rows_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = sample()

    def measures() -> list[object]:
        return [
            metrics.log_softmax(scores).tolist(),
            metrics.log_softmax32(scores).tolist(),
            metrics.ranks(scores, labels).tolist(),
            metrics.negative_log_likelihood(scores, labels),
            metrics.brier_score(scores, labels),
            metrics.reliability(scores, labels),
            calibration.fit_temperature(scores, labels),
            calibration.energy(scores).tolist(),
        ]

    whole = measures()
    monkeypatch.setattr(metrics, "_BLOCK", 7 * CLASSES)
    assert measures() == whole


SCORES = hnp.arrays(np.float64, st.integers(1, 30), elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]))


@given(SCORES, SCORES)
def test_auroc_is_scikit_learns(known: np.ndarray, unknown: np.ndarray) -> None:
    labels = np.repeat([1, 0], [len(known), len(unknown)])
    expected = roc_auc_score(labels, np.concatenate([known, unknown]))
    assert metrics.auroc(known, unknown) == pytest.approx(expected)


@given(SCORES, SCORES, st.sampled_from([0.5, 0.9, 0.95, 1.0]))
def test_false_positives_are_counted_at_the_highest_score_that_keeps_enough_known(
    known: np.ndarray, unknown: np.ndarray, recall: float
) -> None:
    cut = metrics.score_at_recall(known, recall)
    assert (known >= cut).mean() >= recall
    assert (known > cut).mean() < recall
    assert metrics.false_positive_rate(known, unknown, recall) == (unknown >= cut).mean()


def test_measures_of_nothing_are_no_number() -> None:
    nothing, some = np.empty(0), np.ones(3)
    for one, other in ((nothing, some), (some, nothing)):
        assert np.isnan(metrics.auroc(one, other))
        assert np.isnan(metrics.false_positive_rate(one, other))
