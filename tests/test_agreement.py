"""Agreement of observers, against published tables and closed forms."""

import numpy as np
import pytest

from fetal_jax import agreement
from fetal_jax.agreement import ONE_WAY, TWO_WAY

# Shrout & Fleiss 1979, table 2: 6 targets, 4 judges; intervals as R's psych::ICC prints them
RATINGS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)
SIX = list("abcdef")
# Bland & Altman 1986, Lancet i:307: peak flow in l/min, two readings with each of two meters
WRIGHT = np.array(
    [
        [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427],
        [490, 397, 512, 401, 470, 611, 415, 431, 638, 429, 420, 633, 275, 492, 165, 372, 421],
    ],
    float,
)
MINI = np.array(
    [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451], float
)
SEVENTEEN = [f"s{i}" for i in range(17)]


def test_the_published_intraclass_correlations():
    crossed = agreement.correlate_crossed(RATINGS, SIX)
    assert (crossed.form, crossed.n) == (TWO_WAY, 6)
    assert crossed.value == pytest.approx(0.29, abs=0.005)
    assert crossed.interval == pytest.approx([0.02, 0.76], abs=0.005)
    nested = agreement.correlate_nested(RATINGS, SIX)
    assert (nested.form, nested.n) == (ONE_WAY, 6)
    assert nested.value == pytest.approx(0.17, abs=0.005)
    assert nested.interval == pytest.approx([-0.13, 0.72], abs=0.005)
    # mean squares 32.49 between judges, 1.02 error, 6.26 within targets: theirs, in table 3
    assert crossed.sd**2 == pytest.approx((32.49 - 1.02) / 6 + 1.02, abs=0.01)
    assert nested.sd**2 == pytest.approx(6.26, abs=0.005)


def test_judges_without_habits_leave_consistency_alone():
    """ICC(3,1), 0.71 in the same paper, is what is left once each judge's mean is taken away."""
    levelled = RATINGS - RATINGS.mean(axis=0)
    cases = 4 * levelled.mean(axis=1).var(ddof=1)
    error = 1.0194
    consistent = (cases - error) / (cases + 3 * error)
    assert consistent == pytest.approx(0.71, abs=0.005)
    # without habits the observers' variance is estimated as -error / n
    expected = (cases - error) / (cases + 3 * error - 4 * error / 6)
    assert agreement.correlate_crossed(levelled, SIX).value == pytest.approx(expected, abs=1e-3)


def test_a_case_with_a_gap_does_not_count_as_crossed():
    gaps = np.vstack([RATINGS, [[100.0, np.nan, 0.0, 50.0]]])
    assert agreement.correlate_crossed(gaps, [*SIX, "g"]) == agreement.correlate_crossed(
        RATINGS, SIX
    )
    single = np.vstack([RATINGS, [[100.0, np.nan, np.nan, np.nan]]])
    assert agreement.correlate_nested(single, [*SIX, "g"]) == agreement.correlate_nested(
        RATINGS, SIX
    )


def test_unequal_numbers_one_way():
    """By hand: groups (1, 3), (5, 7, 9), (2, 2); m0 = (7 - 17 / 7) / 2."""
    values = np.array([[1, 3, np.nan], [5, 7, 9], [2, np.nan, 2]])
    between = (2 * (2 - 29 / 7) ** 2 + 3 * (7 - 29 / 7) ** 2 + 2 * (2 - 29 / 7) ** 2) / 2
    within, k = (2 + 8 + 0) / 4, (7 - 17 / 7) / 2
    found = agreement.correlate_nested(values, list("abc"))
    assert found.value == pytest.approx((between - within) / (between + (k - 1) * within))
    assert found.sd == pytest.approx(within**0.5)


def test_two_scans_of_a_child_make_no_narrower_interval():
    twice = np.repeat(RATINGS, 2, axis=0)
    own, shared = [f"s{i}" for i in range(12)], np.repeat(SIX, 2)
    for correlate in (agreement.correlate_crossed, agreement.correlate_nested):
        few, many = correlate(twice, shared), correlate(twice, own)
        assert few.value == many.value
        assert np.diff(few.interval) > np.diff(many.interval)


def test_what_has_no_correlation():
    for correlate in (agreement.correlate_crossed, agreement.correlate_nested):
        assert correlate(RATINGS[:1], ["a"]) is None
        assert correlate(RATINGS, ["a"] * 6) is None  # one child
        assert correlate(np.full((6, 4), 7.0), SIX) is None
        same = correlate(np.repeat(RATINGS[:, :1], 2, axis=1), SIX)
        assert (same.value, same.interval, same.sd) == (1.0, None, 0.0)
    assert agreement.correlate_crossed(RATINGS[:, :1], SIX) is None


def test_the_published_limits_of_agreement():
    found = agreement.measure_limits(WRIGHT[0] - MINI, SEVENTEEN)
    assert found.n == 17
    assert found.bias == pytest.approx(-2.1, abs=0.05)
    # 38.8 l/min is the sd; they multiply by 2, and write the limits' standard error as √3 sd / √n
    assert found.limits == pytest.approx([-2.1 - 1.96 * 38.8, -2.1 + 1.96 * 38.8], abs=0.1)
    half = (found.low_ci[1] - found.low_ci[0]) / 2
    assert half == pytest.approx(2.12 * 16.3, rel=0.02)
    assert found.high_ci[1] - found.limits[1] == pytest.approx(half)
    assert found.bias_ci[0] < found.bias < found.bias_ci[1]


def test_the_published_repeatability():
    """Twice the sd of two readings' differences is 43.2 l/min in the same paper."""
    found = agreement.correlate_nested(WRIGHT.T, SEVENTEEN)
    assert 2 * 2**0.5 * found.sd == pytest.approx(43.2, abs=0.15)


def test_limits_without_a_second_subject():
    assert agreement.measure_limits(np.array([1.0, 2.0]), ["a", "a"]) is None
    assert agreement.measure_limits(np.array([1.0, np.nan]), ["a", "b"]) is None


@pytest.fixture
def readings_mm():
    """Two cases, three observers of up to two readings, two landmarks, all on the x axis."""
    x = np.full((2, 3, 2, 2), np.nan)
    x[0, :, 0, 0] = 0.0, 3.0, 9.0  # pairs 3, 9 and 6
    x[0, 0, 1, 0] = 1.0
    x[0, 2, 1, 0] = 12.0
    x[1, :2, 0, 0] = 5.0, 7.0
    x[0, 0, 0, 1] = 4.0  # one observer alone
    return np.stack([x, 0.0 * x, 0.0 * x], axis=-1)


def test_distances_between_and_within(readings_mm):
    between = agreement.measure_between(readings_mm)
    np.testing.assert_allclose(between, [[6.0, np.nan], [2.0, np.nan]])
    within = agreement.measure_within(readings_mm)
    np.testing.assert_allclose(within, [[2.0, np.nan], [np.nan, np.nan]])  # of 1 and 3


def test_distances_of_one_more_observer(readings_mm):
    points = np.zeros((2, 2, 3))
    points[1, 0, 0] = 6.0
    to_each = agreement.measure_to_each(readings_mm, points)
    np.testing.assert_allclose(to_each[:, :, 0], [[0.0, 3.0, 9.0], [1.0, 1.0, np.nan]])
    np.testing.assert_allclose(to_each[0, :, 1], [4.0, np.nan, np.nan])


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"expected readings \[N, A, R, L, 3\], got \(2, 3, 3\)"):
        agreement.measure_between(np.zeros((2, 3, 3)))
