"""Tests that tell settings apart no more often than they say, nor less often than they should."""

import math

import numpy as np
import pytest

from fetal_jax.statistics import (
    bootstrap_interval,
    bootstrap_subjects,
    correct_holm,
    mean_of_groups,
    paired_permutation,
    share_interval,
    subject_means,
    variance_components,
)


def test_subject_means_by_hand():
    errors = np.array([[1.0, 2.0], [4.0, np.nan], [9.0, 9.0], [6.0, 8.0]])
    counted = np.array([[True, True], [True, False], [False, False], [True, True]])
    names, means = subject_means(errors, counted, ["b", "a", "c", "b"])
    assert names == ["a", "b"]
    np.testing.assert_allclose(means, [4.0, 17 / 4])


def test_an_interval_needs_two_subjects():
    errors, counted = np.array([[1.0], [2.0], [3.0]]), np.array([[True], [True], [False]])
    assert bootstrap_interval(errors, counted, ["a", "a", "b"]) is None
    low, high = bootstrap_interval(errors, counted, ["a", "b", "b"])
    assert low == 1.0 and high == 2.0


def test_subjects_are_resampled_whole():
    errors = np.array([[2.0], [2.0], [2.0], [8.0], [8.0], [8.0]])
    counted = np.ones((6, 1), bool)
    # of two subjects, each is drawn twice in a quarter of the resamples
    assert bootstrap_interval(errors, counted, list("aaabbb")) == [2.0, 8.0]
    # of six, only 2s come in 1/64 of them: less than 2.5 %
    low, high = bootstrap_interval(errors, counted, list("abcdef"))
    assert 2.0 < low and high < 8.0


def test_a_mean_weighs_landmarks_and_not_subjects():
    errors = np.zeros((20, 5))
    errors[::2] = 6.0
    counted = np.ones((20, 5), bool)
    counted[1::2, 1:] = False  # the perfect subjects have one landmark each
    low, high = bootstrap_interval(errors, counted, [f"s{i}" for i in range(20)])
    assert low < 6 * 50 / 60 < high
    assert low > 6 * 10 / 20  # the mean of the subjects' means


def test_groups_count_alike_in_their_mean():
    """Twenty children of one age with an error of 1 to 3 mm, four of another with 7 to 9."""
    rng = np.random.default_rng(0)
    errors = np.concatenate([2 + rng.uniform(-1, 1, (20, 3)), 8 + rng.uniform(-1, 1, (4, 3))])
    counted = np.ones(errors.shape, bool)
    errors[0, 0], counted[0, 0] = 1e6, False
    groups = ["young"] * 20 + ["old"] * 4
    mean, (low, high) = mean_of_groups(errors, counted, groups, [f"s{i}" for i in range(24)])
    young, old = errors[:20][counted[:20]].mean(), errors[20:].mean()
    assert mean == pytest.approx((young + old) / 2) and 4.5 < low < mean < high < 5.5
    _, interval = mean_of_groups(errors, counted, groups, ["one"] * 24)
    assert interval is None


def test_coverage_of_the_interval():
    """Of 95 % intervals of gaussian data with clusters, about 95 % hold the truth."""
    rng = np.random.default_rng(3)
    hits, runs, n = 0, 60, 30
    for _ in range(runs):
        errors = 4 + rng.normal(size=(n, 1)) + 0.3 * rng.normal(size=(n, 4))
        low, high = bootstrap_interval(errors, np.ones((n, 4), bool), [f"s{i}" for i in range(n)])
        hits += low <= 4 <= high
    assert 0.82 <= hits / runs  # five binomial deviations below 0.95 and more
    # and the width is that of the subjects' mean, sd sqrt(1 + 0.09 / 4), not of 120 points
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1.0225 / n), rel=0.35)


# ---- shares ----

T_7, T_29 = 2.364624252, 2.045229642  # Student's quantiles of 97.5 %, from a table


def wilson(p, n, z=1.959963985):
    z2 = z**2
    middle = (n * p + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (n * p * (1 - p) + z2 / 4)) / (n + z2)
    return [middle - half, middle + half]


def test_a_share_of_independent_points_is_wilson_s():
    """One point a child: the variance between 30 children is p (1 - p) / 29."""
    within = np.arange(30)[:, None] < 24
    found = share_interval(within, np.ones((30, 1), bool), range(30))
    assert found == pytest.approx(wilson(0.8, 29, T_29))


def test_points_of_a_child_that_go_together_count_as_one():
    within = np.repeat(np.arange(30)[:, None] < 24, 10, axis=1)
    found = share_interval(within, np.ones((30, 10), bool), range(30))
    assert found == pytest.approx(wilson(0.8, 29, T_29))
    assert found[1] - found[0] > 2.5 * np.ptp(wilson(0.8, 300))


def test_points_that_are_alike_in_each_child_count_no_more_than_there_are():
    within = np.tile([True, False], (8, 5))
    found = share_interval(within, np.ones((8, 10), bool), range(8))
    assert found == pytest.approx(wilson(0.5, 80, T_7))


@pytest.mark.parametrize(("share", "end"), [(1.0, 0), (0.0, 1)], ids=["all", "none"])
def test_a_share_of_all_or_nothing_is_not_certain(share, end):
    """Of 9 children with 4 points each: as if of 9 points."""
    found = share_interval(np.full((9, 4), share), np.ones((9, 4), bool), range(9))
    assert found == pytest.approx(wilson(share, 9), abs=1e-8)
    assert found[int(share)] == share and abs(found[end] - share) > 0.25


def test_a_share_needs_two_subjects_and_counts_what_is_counted():
    within = np.array([[True, False], [True, True], [False, False]])
    counted = np.array([[True, True], [True, True], [False, False]])
    assert share_interval(within, counted, ["a", "a", "b"]) is None
    expected = share_interval(within[:2], counted[:2], ["a", "b"])
    assert share_interval(within, counted, ["a", "b", "c"]) == expected


@pytest.mark.parametrize("p", [0.6, 0.9, 0.97])
@pytest.mark.parametrize("children", [12, 40])
def test_coverage_of_a_share_s_interval(p, children):
    """Points of a child that go together half the time: 95 % hold the truth, nearly."""
    rng = np.random.default_rng(5)
    runs, hits = 400, 0
    counted = np.ones((children, 6), bool)
    for _ in range(runs):
        own, shared = rng.random((children, 6)) < p, rng.random((children, 1)) < p
        within = np.where(rng.random((children, 6)) < 0.5, shared, own)
        low, high = share_interval(within, counted, range(children))
        hits += low <= p <= high
    assert hits / runs >= 0.93  # a binomial's sd is 0.011; a bootstrap's are 0.74 to 0.97


# ---- limits of agreement ----


def test_variance_components_by_hand():
    """Means 2 and 6: between them 16 = 2 · 7 + 2; within a child (1 + 1 + 1 + 1) / 2 = 2."""
    values = np.array([[1.0], [3.0], [5.0], [7.0]])
    counted = np.ones((4, 1), bool)
    assert variance_components(values, counted, list("aabb")) == pytest.approx((7.0, 2.0))
    assert variance_components(values, counted, list("aaaa")) is None
    # one a child: the plain variance
    assert variance_components(values, counted, list("abcd")) == pytest.approx((20 / 3, 0.0))
    # a child's scans are more unlike than the children
    assert variance_components(values, counted, list("abba")) == pytest.approx((0.0, 10.0))


def test_variance_components_of_unequal_numbers():
    """Children with 1 to 6 scans, an sd of 2 mm between them and of 1 mm within one."""
    rng = np.random.default_rng(0)
    counted = np.arange(6)[None] < rng.integers(1, 7, (3000, 1))
    values = 2.0 * rng.normal(size=(3000, 1)) + rng.normal(size=(3000, 6))
    values = np.where(counted, values, np.nan)
    between, within = variance_components(values, counted, range(3000))
    assert between == pytest.approx(4.0, rel=0.08) and within == pytest.approx(1.0, rel=0.05)


def test_two_identical_runs_have_a_p_of_one():
    a = np.random.default_rng(0).random(30)
    assert paired_permutation(a, a) == 1.0
    assert paired_permutation(np.array([]), np.array([])) == 1.0


def test_few_pairs_are_exact():
    """All of 2^4 signs: only all and none are as far out."""
    assert paired_permutation(np.array([2.0, 3, 4, 5]), np.ones(4)) == pytest.approx(2 / 16)


def test_the_sign_does_not_matter():
    rng = np.random.default_rng(1)
    a, b = rng.random(20), rng.random(20) + 0.1
    assert paired_permutation(a, b) == pytest.approx(paired_permutation(b, a), abs=0.01)


def simulate(rng, shift_mm, subjects=24):
    """Subject means of two settings: children differ by 0.5 mm, a setting in a child by 0.3 mm."""
    child = 1.8 + 0.5 * rng.normal(size=subjects)
    a, b = child + 0.3 * rng.normal(size=(2, subjects))
    return a + shift_mm, b


def test_half_a_millimetre_is_told_apart():
    rng = np.random.default_rng(2)
    found = [paired_permutation(*simulate(rng, 0.5)) for _ in range(40)]
    assert np.mean(np.array(found) < 0.05) > 0.95


def test_noise_alone_is_told_apart_as_often_as_p_says():
    """Of 400 pairs 5 % are below 0.05; the bound is 3 sd of a binomial."""
    rng = np.random.default_rng(3)
    found = np.array([paired_permutation(*simulate(rng, 0.0, 12)) for _ in range(400)])
    for level in (0.05, 0.2):
        share = np.mean(found < level)
        assert abs(share - level) < 3 * np.sqrt(level * (1 - level) / 400)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected two arrays \[n\], got \(3,\) and \(2,\)"):
        paired_permutation(np.ones(3), np.ones(2))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 · 0.01, then 2 · 0.03, never falling
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
    ],
)
def test_holm_by_hand(found, expected):
    assert correct_holm(found) == pytest.approx(expected)


def test_a_bootstrap_of_any_number_is_that_of_the_mean():
    """Of a mean it is the interval of `bootstrap_interval`, but for chance."""
    rng = np.random.default_rng(0)
    subjects = [f"s{i // 2}" for i in range(60)]
    errors = rng.normal(3.0, 1.0, (60, 4))
    counted = np.ones(errors.shape, bool)
    expected = bootstrap_interval(errors, counted, subjects)
    found = bootstrap_subjects(lambda rows: errors[rows].mean(), subjects, resamples=2000)
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert bootstrap_subjects(lambda rows: errors[rows].mean(), ["one"] * 60) is None
    assert bootstrap_subjects(lambda rows: float("nan"), subjects) is None
