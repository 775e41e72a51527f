"""Intervals: against SciPy, against sums written out, and how often they cover what is true."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.evaluation import intervals


def some_wrong(photos: int = 400, seed: int = 0) -> np.ndarray:
    """Whether each of some photos is wrong; about a sixth are."""
    return np.random.default_rng(seed).integers(0, 6, photos) == 2


# The exact binomial interval, and the effective number of photos.


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(("wrong", "photos"), [(0, 1), (0, 7), (1, 7), (7, 7), (1, 2), (40, 300), (299, 300)])
def test_the_interval_of_independent_photos_is_scipys(wrong: int, photos: int, level: float) -> None:
    exact = scipy.stats.binomtest(wrong, photos).proportion_ci(level, method="exact")
    wrong_N = np.arange(photos) < wrong
    assert intervals.binomial_interval(wrong, photos, level) == pytest.approx((exact.low, exact.high))
    assert intervals.error_interval(wrong_N, level=level) == pytest.approx((exact.low, exact.high))
    assert intervals.error_interval(wrong_N, [None] * photos, level=level) == pytest.approx(exact)


@pytest.mark.parametrize(("value", "units"), [(0, 20), (1, 20), (0, 1)])
def test_without_any_variation_a_group_counts_as_one_photo(value: int, units: int) -> None:
    exact = scipy.stats.binomtest(value * units, units).proportion_ci(0.95, method="exact")
    groups = [str(at) for at in range(units)] * 3
    found = intervals.error_interval(np.full(3 * units, value), groups)
    assert found == pytest.approx((exact.low, exact.high))


def test_the_low_end_allows_for_photos_that_were_not_learned_from() -> None:
    wrong_N = some_wrong(60)
    low, high = intervals.error_interval(wrong_N)
    assert intervals.error_interval(wrong_N, share_learned=0.8) == pytest.approx((0.8 * low, high))


def test_one_group_says_next_to_nothing() -> None:
    low, high = intervals.error_interval(np.array([0, 1, 1]), ["a", "a", "a"])
    assert low < 0.05
    assert high > 0.95


def test_the_effective_size_is_that_of_the_linearised_variance() -> None:
    """Korn and Graubard's formula, written out for groups of unequal size."""
    random = np.random.default_rng(4)
    group_N = np.repeat(np.arange(30), random.integers(1, 9, 30))
    wrong_N = random.random(len(group_N)) < random.beta(1, 3, 30)[group_N]
    mean, photos = wrong_N.mean(), len(wrong_N)
    sums = [(wrong_N[group_N == group] - mean).sum() for group in range(30)]
    variance = 30 / 29 * np.sum(np.square(sums)) / photos**2
    design = variance / (mean * (1 - mean) / (photos - 1))
    quantiles = scipy.stats.t.ppf(0.975, photos - 1) / scipy.stats.t.ppf(0.975, 29)
    error, effective = intervals.effective_size(wrong_N, [str(group) for group in group_N])
    assert error == pytest.approx(mean)
    assert effective == pytest.approx(photos / design * quantiles**2)
    assert 30 / 2 < effective < photos


def test_copies_of_a_photo_in_its_group_say_no_more_than_the_photo() -> None:
    wrong_N = some_wrong(50, seed=5)
    groups = [str(at) for at in range(50) for _ in range(20)]
    (low, high), alone = intervals.error_interval(np.repeat(wrong_N, 20), groups), some_wrong(50, seed=5)
    one_low, one_high = intervals.error_interval(alone)
    assert low <= one_low + 1e-9
    assert high >= one_high - 1e-9
    assert high - low < 1.1 * (one_high - one_low)
    low, high = intervals.error_interval(np.repeat(wrong_N, 20))
    assert high - low < 0.4 * (one_high - one_low)


def test_the_order_of_the_photos_does_not_matter() -> None:
    wrong_N, groups, classes_N = some_wrong(90), [str(at // 4) for at in range(90)], np.arange(90) % 7
    order = np.random.default_rng(1).permutation(90)
    found = intervals.error_interval(wrong_N, groups, classes_N=classes_N)
    again = intervals.error_interval(wrong_N[order], [groups[at] for at in order], classes_N=classes_N[order])
    assert again == pytest.approx(found)


PHOTOS = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=40)


@given(PHOTOS, st.booleans())
def test_an_error_interval_lies_between_0_and_1_around_the_error(
    photos: list[tuple[bool, int, int]], macro: bool
) -> None:
    wrong_N = np.array([wrong for wrong, _, _ in photos])
    groups = [f"group {group}" if group else None for _, group, _ in photos]
    classes_N = np.array([each for _, _, each in photos])
    error, effective = intervals.effective_size(wrong_N, groups, classes_N if macro else None)
    mean = wrong_N.mean()
    if macro:
        mean = np.mean([wrong_N[classes_N == each].mean() for each in np.unique(classes_N)])
    assert error == pytest.approx(mean)
    assert 1 <= effective <= len(photos) + 1e-9
    low, high = intervals.error_interval(wrong_N, groups, classes_N=classes_N if macro else None)
    assert 0 <= low <= error + 1e-9
    assert error - 1e-9 <= high <= 1
    narrow = intervals.error_interval(wrong_N, groups, classes_N=classes_N if macro else None, level=0.5)
    assert low - 1e-9 <= narrow[0]
    assert narrow[1] <= high + 1e-9


@given(st.integers(0, 30), st.integers(1, 30), st.floats(0.3, 0.99))
def test_right_and_wrong_are_each_others_mirror(right: int, more: int, level: float) -> None:
    trials = right + more
    low, high = intervals.binomial_interval(right, trials, level)
    other_low, other_high = intervals.binomial_interval(trials - right, trials, level)
    assert (low, high) == pytest.approx((1 - other_high, 1 - other_low))


@pytest.mark.parametrize("photos", [8, 25, 120])
@pytest.mark.parametrize("error", [0.03, 0.3])
def test_few_independent_photos_are_covered(photos: int, error: float) -> None:
    """Exact: the truth lies inside at least as often as is said, however few the mistakes."""
    chance_K = scipy.stats.binom.pmf(np.arange(photos + 1), photos, error)
    found = [intervals.error_interval(np.arange(photos) < wrong) for wrong in range(photos + 1)]
    inside_K = np.array([low <= error <= high for low, high in found])
    assert chance_K[inside_K].sum() >= 0.95


@pytest.mark.parametrize(("groups", "error"), [(6, 0.3), (12, 0.1), (40, 0.1)])
def test_few_groups_are_covered(groups: int, error: float) -> None:
    """Photos of a group are alike: some groups are mostly wrong, most are not at all."""
    random, hits, repeats = np.random.default_rng([groups, 8]), 0, 600
    for _ in range(repeats):
        size_U = random.integers(2, 8, groups)
        wrong_U = random.beta(error, 1 - error, groups)
        group_N = np.repeat(np.arange(groups), size_U)
        wrong_N = random.random(len(group_N)) < wrong_U[group_N]
        low, high = intervals.error_interval(wrong_N, [str(group) for group in group_N])
        hits += low <= error <= high
    assert hits / repeats >= 0.93


def test_a_macro_average_is_worth_no_more_than_its_weights() -> None:
    """A class with one photo weighs as much as one with a hundred."""
    classes_N = np.repeat([0, 1], [1, 100])
    weights = np.array([1 / 2, *np.full(100, 1 / 200)])
    for wrong_N in (np.zeros(101), np.arange(101) == 50):
        _, effective = intervals.effective_size(wrong_N, classes_N=classes_N)
        assert effective <= 1 / np.square(weights).sum() + 1e-9
    assert intervals.error_interval(np.zeros(101), classes_N=classes_N)[1] > 0.6


@pytest.mark.parametrize("most", [3, 30])
def test_the_macro_average_is_covered(most: int) -> None:
    """Classes of 1 photo and of many; the photos differ, the classes are the same each time."""
    random, hits, repeats = np.random.default_rng([most, 9]), 0, 600
    photos_C = np.array([1, 1, 2, 2, most, most, most, 2 * most])
    error_C = np.array([0.5, 0.3, 0.2, 0.1, 0.3, 0.05, 0.1, 0.02])
    classes_N = np.repeat(np.arange(8), photos_C)
    for _ in range(repeats):
        wrong_N = random.random(len(classes_N)) < error_C[classes_N]
        low, high = intervals.error_interval(wrong_N, classes_N=classes_N)
        hits += low <= error_C.mean() <= high
    assert hits / repeats >= 0.93


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        intervals.error_interval(np.array([]))
    with pytest.raises(ValueError, match="2 groups"):
        intervals.error_interval(np.array([1.0]), ["a", "b"])


# Differences: the sign test, and the interval that agrees with it.


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0]), max_size=40))
def test_the_sign_test_is_scipys(values: list[float]) -> None:
    more, less = sum(value > 0 for value in values), sum(value < 0 for value in values)
    expected = scipy.stats.binomtest(more, more + less).pvalue if more + less else 1.0
    assert intervals.sign_test(np.array(values)) == pytest.approx(expected)
    assert intervals.sign_test(-np.array(values)) == intervals.sign_test(np.array(values))


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.integers(0, 12)), min_size=1, max_size=60))
def test_a_difference_without_zero_is_one_that_the_sign_test_finds(photos: list[tuple[float, int]]) -> None:
    values_N = np.array([value for value, _ in photos])
    groups = [f"group {group}" if group > 4 else None for _, group in photos]
    low, high = intervals.difference_interval(values_N, groups, replicates=200)
    assert -1 <= low <= high <= 1
    unit_N = intervals.units(groups, len(photos))
    chance = intervals.sign_test(np.bincount(unit_N, weights=values_N))
    if low > 0 or high < 0:
        assert chance <= 0.05
    assert low <= values_N.mean() + 1e-9
    assert high >= values_N.mean() - 1e-9


@pytest.mark.parametrize("values", [[1.0], [1.0] * 5, [0.5, 0.4, 0.3, 0.2, 0.6]])
def test_a_handful_tells_no_two_things_apart(values: list[float]) -> None:
    """Five photos that all speak for one agree by chance in 1 of 16 cases."""
    assert intervals.difference_interval(np.array(values)) == (-1, 1)
    many, one = np.repeat(values, 9), ["one group"] * (9 * len(values))
    assert intervals.difference_interval(many, one, most=5) == (-5, 5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("apart", "told"), [(5, False), (6, True)])
def test_five_one_sided_photos_among_many_are_no_difference(apart: int, told: bool, sign: float) -> None:
    """On 200 photos that differ on 5, the bootstrap alone would claim a difference."""
    values_N = np.repeat([sign, 0.0], [apart, 200 - apart])
    low, high = sorted(abs(each) for each in intervals.bootstrap(values_N))
    assert low > 0
    low, high = intervals.difference_interval(values_N)
    assert (low > 0 or high < 0) == told
    assert low <= values_N.mean() <= high


def test_many_photos_of_few_groups_are_no_difference() -> None:
    """Five sequences of 40 photos speak for one, 20 speak for none."""
    values_N, groups = np.repeat([1.0, 0.0], [200, 800]), [str(at // 40) for at in range(1000)]
    low, _ = intervals.difference_interval(values_N, groups)
    assert low == 0
    low, _ = intervals.difference_interval(values_N)
    assert low > 0


def test_equal_classifiers_are_seldom_told_apart() -> None:
    """Few photos on which they differ, so that the percentiles of the bootstrap are coarse."""
    random, told, repeats = np.random.default_rng(2), 0, 500
    for _ in range(repeats):
        values_N = random.choice([-1.0, 0.0, 1.0], 80, p=[0.05, 0.9, 0.05])
        low, high = intervals.difference_interval(values_N, replicates=200)
        told += low > 0 or high < 0
    assert told / repeats <= 0.06


@given(st.integers(6, 200), st.sampled_from([-1.0, 0.0, 1.0]))
def test_the_same_difference_everywhere_is_not_certain(units: int, value: float) -> None:
    low, high = intervals.difference_interval(np.full(units, value))
    assert -1 <= low <= value <= high <= 1
    assert high - low > 1 / units
    if value == 0:
        exact = scipy.stats.binomtest(0, units).proportion_ci(0.95, method="exact").high
        assert (low, high) == pytest.approx((-exact, exact))


def test_a_difference_that_is_plain_has_the_bootstraps_interval() -> None:
    apart = some_wrong() - (some_wrong(seed=3) & some_wrong(seed=4)).astype(float)
    assert intervals.sign_test(apart) < 0.01
    assert intervals.difference_interval(apart) == intervals.bootstrap(apart)


# The bootstrap.


def test_bootstrap_is_scipys() -> None:
    values = np.random.default_rng(3).normal(size=200)
    low, high = intervals.bootstrap(values, replicates=8000)
    reference = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=8000, method="percentile", rng=1
    ).confidence_interval
    width = reference.high - reference.low
    assert low == pytest.approx(reference.low, abs=0.03 * width)
    assert high == pytest.approx(reference.high, abs=0.03 * width)


def test_bootstrap_is_a_function_of_its_seed() -> None:
    values = some_wrong()
    assert intervals.bootstrap(values) == intervals.bootstrap(values)
    assert intervals.bootstrap(values) != intervals.bootstrap(values, seed=1)
    assert intervals.bootstrap(values, ["a"] * 200 + ["b"] * 200) != intervals.bootstrap(values)


def test_bootstrap_draws_the_same_whether_in_one_piece_or_many(monkeypatch: pytest.MonkeyPatch) -> None:
    values, classes = some_wrong(), np.arange(400) % 7
    whole = intervals.bootstrap(values, classes_N=classes)
    monkeypatch.setattr(intervals, "_CHUNK", 3000)
    assert intervals.bootstrap(values, classes_N=classes) == pytest.approx(whole)


def test_photos_of_one_group_do_not_make_the_interval_narrower() -> None:
    """Twenty copies of each photo say no more than the photo did."""
    values = np.random.default_rng(5).integers(0, 2, 50).astype(float)
    alone = intervals.bootstrap(values)
    groups = [str(at) for at in range(50) for _ in range(20)]
    copies = intervals.bootstrap(np.repeat(values, 20), groups)
    assert copies == pytest.approx(alone)
    low, high = intervals.bootstrap(np.repeat(values, 20))
    assert high - low < 0.4 * (alone[1] - alone[0])


def test_a_photo_without_a_group_stands_alone() -> None:
    values = np.random.default_rng(5).integers(0, 2, 50).astype(float)
    assert intervals.bootstrap(values, [None] * 50) == intervals.bootstrap(values)


def test_macro_interval_is_that_of_replicates_written_out() -> None:
    random = np.random.default_rng(2)
    classes = np.repeat([0, 1, 2], [60, 20, 5])
    values = (random.random(85) < np.array([0.1, 0.5, 0.8])[classes]).astype(float)
    replicates = []
    for _ in range(4000):
        drawn = random.integers(0, 85, 85)
        means = [values[drawn][classes[drawn] == one].mean() for one in np.unique(classes[drawn])]
        replicates.append(np.mean(means))
    reference = np.quantile(replicates, [0.025, 0.975])
    found = intervals.bootstrap(values, classes_N=classes, replicates=4000)
    np.testing.assert_allclose(found, reference, atol=0.02)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(8)
    hits = 0
    for _ in range(300):
        low, high = intervals.bootstrap(random.random(150) < 0.3, replicates=400)
        hits += low <= 0.3 <= high
    assert 0.90 <= hits / 300 <= 0.985


def test_bootstrap_refuses_what_has_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one"):
        intervals.bootstrap(np.array([]))
    with pytest.raises(ValueError, match="2 groups"):
        intervals.bootstrap(np.array([1.0]), ["a", "b"])
