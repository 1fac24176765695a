"""Confidences of a cross-validation: no fold's come from its own points."""

import numpy as np
import pytest

from fetal_jax.calibration import calibrate, fit_calibration
from fetal_jax.runs.out_of_fold import calibrate_folds, fit_points
from fetal_jax.runs.predictions import make_predictions

RADIUS_MM = 2.0


@pytest.fixture
def make_fold(make_prepared):
    """Sixty cases of three landmarks, the third completed; masses, and which points are right."""

    def make(mass, right):
        points = np.full((60, 3, 3), 5.0)
        cases = make_prepared(
            points,
            completed=[(i, 2) for i in range(60)],
            subjects=[f"s{i}" for i in range(60)],
        )
        off_mm = np.where(right, 0.5, 5.0)[..., None] * np.array([1.0, 0.0, 0.0])
        unknown = np.zeros((60, 3, 1))
        found = cases.points_mm + off_mm
        return cases, make_predictions(found, found, mass, unknown, unknown)

    return make


def test_points_that_cannot_be_seen_count(make_fold):
    """Of the seen points 59 of 60 are right, of the completed one in two, at one mass."""
    right = np.ones((60, 3), bool)
    right[0, :2] = False
    right[::2, 2] = False
    fold = make_fold(np.full((60, 3), 0.4), right)
    fitted = fit_points([fold], RADIUS_MM, 0.0).confidence
    share = right.mean()
    assert float(calibrate(np.float32(0.4), fitted)) == pytest.approx(share, abs=0.01)
    assert fitted.n == 180


def test_a_fold_s_own_points_are_left_out(make_fold):
    rng = np.random.default_rng(0)
    folds = [
        make_fold(rng.uniform(0.1, 0.9, (60, 3)), rng.random((60, 3)) < share)
        for share in (0.5, 0.7, 0.9)
    ]
    calibrated = calibrate_folds(folds, RADIUS_MM, 0.9)
    for k, (_, before) in enumerate(folds):
        others = [folds[i] for i in range(3) if i != k]
        mass = np.concatenate([found.mass.ravel() for _, found in others])
        right = np.concatenate(
            [
                (np.abs(found.points_mm - cases.points_mm)[..., 0] < RADIUS_MM).ravel()
                for cases, found in others
            ]
        )
        expected = calibrate(before.mass, fit_calibration(mass, right))
        np.testing.assert_allclose(calibrated[k].confidence, expected, rtol=1e-6)
        np.testing.assert_array_equal(calibrated[k].points_mm, before.points_mm)


def test_a_fold_s_radii_come_from_the_others_too(make_fold):
    """Errors of 0.5 mm in one fold and of 5 in the other, at one mass."""
    mass = np.full((60, 3), 0.4)
    folds = [make_fold(mass, np.full((60, 3), right)) for right in (True, False)]
    near, far = (one.radius_mm for one in calibrate_folds(folds, RADIUS_MM, 0.9))
    np.testing.assert_allclose(near, 5.0, rtol=1e-5)
    np.testing.assert_allclose(far, 0.5, rtol=1e-5)
    off = calibrate_folds(folds, RADIUS_MM, 0.0)
    assert all(np.isnan(one.radius_mm).all() for one in off)
