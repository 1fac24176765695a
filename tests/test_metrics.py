"""Errors and their summaries against numpy by hand; whole subjects in the interval."""

import math

import jax
import numpy as np
import pytest

from fetal_jax import heatmaps
from fetal_jax.metrics import (
    area_under_curve,
    local_accuracy,
    mean_known,
    measure_spread,
    radial_errors,
    summarise_errors,
)


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


def test_a_point_of_several_models_counts_once():
    """Means 2 and 6 mm; within 3 mm are 1 3 | 3 9 of which three, or three quarters."""
    errors = np.array([[[1.0, 3.0, 50.0]], [[3.0, 9.0, 50.0]]])
    found = summarise_errors(errors, np.array([[True, True, False]]), [3.0])
    assert found["n"] == 2 and found["d_mean_mm"] == found["d_median_mm"] == 4.0
    assert found["d_sd_mm"] == pytest.approx(math.sqrt(8))
    assert found["success_rate"] == {"3.0": 0.75}


def test_one_error_has_no_deviation():
    found = summarise_errors(np.array([[2.5]]), np.array([[True]]), [2.5])
    assert found["d_mean_mm"] == 2.5 and found["d_sd_mm"] is None
    assert found["success_rate"] == {"2.5": 1.0}


# ---- expected local accuracy ----


compute_distances = jax.jit(heatmaps.compute_distances, static_argnums=0)


def place_target(shape, target):
    """Distances [M] in mm of voxels of 2 mm."""
    return np.asarray(compute_distances(shape, target, 2.0)).reshape(-1)


def by_brute_force(scores, distance_mm, radii_mm):
    errors, guesses = [], []
    for radius in radii_mm:
        inside = np.flatnonzero(distance_mm <= radius)
        if not inside.size:
            inside = np.array([np.argmin(distance_mm)])
        errors.append(distance_mm[inside[np.argmax(scores[inside])]])  # argmax: the lowest index
        guesses.append(distance_mm[inside].mean())
    return np.array(errors), np.array(guesses)


RADII = np.linspace(0.5, 25, 50).astype(np.float32)
SHAPES = [(3, 8, 7), (7, 4, 6)]  # of as many voxels, for each number is compiled
CASES = [(seed, ties) for seed in range(12) for ties in (False, True)]
measure_accuracy = jax.jit(local_accuracy)


@pytest.mark.parametrize(("seed", "ties"), CASES)
def test_local_accuracy_equals_brute_force(seed, ties):
    rng = np.random.default_rng(seed)
    shape = SHAPES[seed % 2]
    scores = rng.normal(size=math.prod(shape)).astype(np.float32)
    if ties:
        scores = np.round(scores)
    distance_mm = place_target(shape, rng.uniform(-2, 9, 3).astype(np.float32))
    errors, guesses = measure_accuracy(scores, distance_mm, RADII)
    expected_errors, expected_guesses = by_brute_force(scores, distance_mm, RADII)
    np.testing.assert_array_equal(errors, expected_errors)
    np.testing.assert_allclose(guesses, expected_guesses, rtol=1e-5)


def test_properties_of_local_accuracy():
    """Never above max(R, the nearest voxel), never falling, and in the end the decoder's error."""
    shape, radii = SHAPES[1], np.linspace(0.1, 60, 50).astype(np.float32)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        logits = np.round(2 * rng.normal(size=shape)).astype(np.float32)
        target = rng.uniform(0, 6, 3).astype(np.float32)
        distance_mm = place_target(shape, target)
        errors, _ = measure_accuracy(logits.reshape(-1), distance_mm, radii)
        assert (np.diff(errors) >= 0).all()
        assert (errors <= np.maximum(radii, distance_mm.min())).all()
        peak = np.unravel_index(logits.argmax(), shape)  # the lowest index, as in the decoder
        last = 2.0 * np.linalg.norm(peak - target)
        np.testing.assert_allclose(errors[-1], last, rtol=1e-5)


def test_a_constant_map_is_not_perfect():
    """The lowest index counts: the corner of the ball that the decoder would say."""
    shape = (7, 7, 7)
    distance_mm = place_target(shape, np.array([3.0, 3.0, 3.0], np.float32))
    radii = np.array([1.0, 2.0, 100.0], np.float32)
    errors, _ = measure_accuracy(np.zeros(343, np.float32), distance_mm, radii)
    np.testing.assert_allclose(errors, [0.0, 2.0, 2 * math.sqrt(27)], rtol=1e-6)


def draw_random_maps(shape, target, radii, count):
    """Mean over random maps, and the limit of a random guesser."""
    distance_mm = place_target(shape, np.asarray(target, np.float32))

    @jax.jit
    def measure(keys, distance_mm):
        def one(key):
            scores = jax.random.uniform(key, distance_mm.shape)
            return local_accuracy(scores, distance_mm, radii)

        return jax.lax.map(one, keys)

    errors, guesses = measure(jax.random.split(jax.random.key(0), count), distance_mm)
    return np.asarray(errors).mean(axis=0), np.asarray(guesses)[0]


def test_random_maps_reach_the_limit_of_a_random_guesser():
    """0.75 R for R of 10 to 12 voxels, in a volume that holds the ball."""
    radii = np.array([20.0, 22.0, 24.0], np.float32)
    errors, guesses = draw_random_maps((27, 27, 27), [13.2, 12.9, 13.0], radii, 3000)
    np.testing.assert_allclose(errors, 0.75 * radii, rtol=0.01)
    np.testing.assert_allclose(guesses, 0.75 * radii, rtol=0.01)


def test_random_maps_in_a_small_volume_reach_the_clipped_limit():
    radii = np.array([10.0, 30.0], np.float32)
    errors, guesses = draw_random_maps((8, 8, 8), [1.0, 2.5, 6.0], radii, 4000)
    np.testing.assert_allclose(errors, guesses, rtol=0.02)
    assert guesses[1] < 0.75 * 15  # cut off long before 0.75 · 30


def test_local_accuracy_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"expected scores \[M\], distances \[M\] and radii"):
        local_accuracy(np.zeros((2, 3)), np.zeros((2, 3)), np.ones(3))


# ---- annotators ----


def test_spread_of_annotators_by_hand():
    readings = np.zeros((3, 2, 3))
    readings[1, 0] = [3.0, 4.0, 0.0]
    readings[2, 0] = [0.0, 0.0, 1.0]
    readings[1:, 1] = np.nan  # one reading is no spread
    apart = (5.0 + 1.0 + math.sqrt(26.0)) / 3
    np.testing.assert_allclose(measure_spread(readings), [apart, np.nan])
    readings[2, 1] = [0.0, 2.0, 0.0]
    np.testing.assert_allclose(measure_spread(readings), [apart, 2.0])


@pytest.mark.parametrize("annotators", [0, 1])
def test_a_single_annotator_has_no_spread(annotators):
    assert np.isnan(measure_spread(np.zeros((annotators, 4, 3)))).all()
    assert measure_spread(np.zeros((annotators, 4, 3))).shape == (4,)


def test_the_area_under_the_curve_by_counting_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 60), rng.random(60) < 0.4  # with ties
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert area_under_curve(scores, positive) == pytest.approx(np.mean(pairs))
    assert math.isnan(area_under_curve(scores, np.ones(60, bool)))


def test_the_mean_of_what_is_known():
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    np.testing.assert_allclose(mean_known(values), [2.0, 5.0, np.nan])
    np.testing.assert_allclose(mean_known(values, axis=1), [1.0, 4.0])
