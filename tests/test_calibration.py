"""Calibration: the curve that was put in comes out; few points say nothing."""

import numpy as np
import pytest
from scipy import special

from fetal_jax.calibration import Calibration, calibrate, fit_calibration


@pytest.mark.parametrize(("offset", "slope"), [(2.0, 1.0), (0.5, 0.4), (-1.0, 2.0)])
def test_a_known_curve_is_found(offset, slope):
    rng = np.random.default_rng(0)
    mass = rng.uniform(0.02, 0.98, 20_000)
    within = rng.random(20_000) < special.expit(offset + slope * special.logit(mass))
    found = fit_calibration(mass, within)
    assert (found.offset, found.slope) == pytest.approx((offset, slope), abs=0.06)
    assert found.n == 20_000


def test_the_curve_by_hand():
    """A mass of 0.75 is a logit of log 3."""
    expected = 1 / (1 + np.exp(-0.5) / 3**2)
    np.testing.assert_allclose(calibrate(np.float32(0.75), Calibration(0.5, 2.0)), expected, 1e-5)
    np.testing.assert_allclose(calibrate(np.float32([0.1, 0.9]), Calibration()), [0.1, 0.9], 1e-5)
    assert np.isfinite(calibrate(np.float32([0.0, 1.0]), Calibration(0.0, 9.0))).all()


def test_a_fit_keeps_the_mean():
    """Of 200 points of one mass 150 were right: their share, with Platt's targets."""
    found = fit_calibration(np.full(200, 0.3), np.arange(200) < 150)
    share = (150 * 151 / 152 + 50 / 52) / 200
    np.testing.assert_allclose(calibrate(np.float32(0.3), found), share, rtol=1e-3)


def test_no_miss_is_no_certainty():
    found = fit_calibration(np.linspace(0.2, 0.4, 100), np.ones(100, bool))
    assert 0.97 < float(calibrate(np.float32(0.3), found)) < 1.0


def test_a_slope_stays_where_nothing_moves_it():
    """No miss among points of different masses: surer ones stay surer, though all were right."""
    found = fit_calibration(np.linspace(0.2, 0.9, 240), np.ones(240, bool))
    assert found.slope == pytest.approx(1.0, abs=0.3)
    low, high = (float(calibrate(np.float32(mass), found)) for mass in (0.2, 0.9))
    assert 0.9 < low < high < 1.0 and (1 - low) > 5 * (1 - high)


def test_the_curve_never_falls():
    mass = np.linspace(0.1, 0.9, 100)
    assert fit_calibration(mass, mass < 0.5).slope == 0.0


def test_few_points_change_nothing():
    assert fit_calibration(np.full(19, 0.3), np.ones(19, bool)) == Calibration()


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"expected two arrays \[n\], got \(2,\) and \(3,\)"):
        fit_calibration(np.zeros(2), np.zeros(3, bool))
