"""The growth equations against the papers' values, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax import growth

AGES = [20.0, 26.0, 29.0, 36.0]
TABLE = {  # mm at AGES, as printed: half of the last digit is the tolerance
    "interocular_mm": ([12.5, 15.6, 17.1, 20.7], 0.05),
    "binocular_mm": ([31.0, 39.5, 43.8, 53.7], 0.05),
    "philtrum_mm": ([5.0, 6.5, 7.2, 8.4], 0.05),
    "head_circumference_mm": ([172, 241, 270, 319], 0.5),
    "biparietal_mm": ([48, 68, 76, 91], 0.5),
    "facial_height_mm": ([25.8, 35.7, 39.8, 48.0], 0.05),
    "facial_width_mm": ([35.3, 46.2, 50.8, 59.9], 0.05),
}
every_curve = pytest.mark.parametrize("name", TABLE)


def test_no_curve_is_left_out():
    assert set(TABLE) == {name for name in vars(growth) if name.endswith("_mm")}


@every_curve
def test_values_of_the_papers(name):
    expected, tolerance = TABLE[name]
    found = getattr(growth, name)(np.array(AGES))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * 1.001)


@every_curve
def test_numpy_stays_numpy_in_double_precision(name):
    found = getattr(growth, name)(np.array([AGES, AGES]))
    assert type(found) is np.ndarray and found.dtype == np.float64 and found.shape == (2, 4)


@every_curve
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap], ids=["plain", "jit", "vmap"])
def test_jax_arrays(name, wrap):
    expected, tolerance = TABLE[name]
    found = wrap(getattr(growth, name))(jnp.array(AGES))
    assert isinstance(found, jax.Array) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * 1.001)


@every_curve
def test_a_plain_number(name):
    expected, tolerance = TABLE[name]
    assert float(getattr(growth, name)(29.0)) == pytest.approx(expected[2], abs=tolerance)


@every_curve
def test_faces_grow(name):
    slope = jax.vmap(jax.grad(getattr(growth, name)))(jnp.array(AGES))
    assert (slope > 0).all()
