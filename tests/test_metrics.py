"""Errors and their summaries against numpy by hand; whole subjects in the interval."""

import math

import numpy as np
import pytest

from fetal_jax.metrics import bootstrap_interval, radial_errors, summarise_errors


def test_radial_errors_by_hand():
    found = np.array([[[3.0, 4.0, 0.0], [1.0, 1.0, 1.0]], [[0.0, 0.0, -2.0], [5.0, 5.0, 5.0]]])
    truth = np.array([[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], [[1.0, 2.0, 0.0], [np.nan] * 3]])
    np.testing.assert_allclose(radial_errors(found, truth), [[5, 0], [3, np.nan]])


def test_radial_errors_refuse_other_shapes():
    with pytest.raises(ValueError, match=r"expected two arrays \[..., L, 3\], got \(2, 3\) and"):
        radial_errors(np.zeros((2, 3)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(3, 2\)"):
        radial_errors(np.zeros((3, 2)), np.zeros((3, 2)))


def test_summary_by_hand():
    errors = np.array([[1.0, 2.0, 100.0], [4.0, np.nan, 5.0]])
    counted = np.array([[True, True, False], [True, False, True]])
    found = summarise_errors(errors, counted, [2, 4.0, 6])
    assert found["n"] == 4  # 1, 2, 4, 5
    assert found["d_mean_mm"] == 3.0
    assert found["d_sd_mm"] == pytest.approx(math.sqrt((4 + 1 + 1 + 4) / 3))
    assert found["d_median_mm"] == 3.0
    assert found["d_p95_mm"] == pytest.approx(4 + 0.85)  # 95 % of the way through 3 gaps
    assert found["success_rate"] == {"2.0": 0.5, "4.0": 0.75, "6.0": 1.0}
    assert all(type(v) in (int, float, dict) for v in found.values())


def test_nothing_counted_is_null_and_never_zero():
    found = summarise_errors(np.full((2, 2), np.nan), np.zeros((2, 2), bool), [2.0])
    assert found.pop("n") == 0
    assert found.pop("success_rate") == {"2.0": None}
    assert set(found.values()) == {None}


def test_one_error_has_no_deviation():
    found = summarise_errors(np.array([[2.5]]), np.array([[True]]), [2.5])
    assert found["d_mean_mm"] == 2.5 and found["d_sd_mm"] is None
    assert found["success_rate"] == {"2.5": 1.0}


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
