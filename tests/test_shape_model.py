"""Shapes as modes about a mean: what was put in comes out, and the Gaussian's own formula holds."""

import jax
import numpy as np
import pytest

from fetal_jax import shape_model
from fetal_jax.frames import MIRROR
from fetal_jax.shape_model import ShapeModel

complete_shape = jax.jit(shape_model.complete_shape)
MEAN = np.array([[0, 5.0, 0], [8, 0, 2], [-8, 0, 2], [4, 3, -9], [-4, 3, -9], [0, 6, -14]])
MIRROR_INDEX = np.array([0, 2, 1, 4, 3, 5])


def make_shapes(n, *, noise_mm, seed=0):
    """A face that grows wider, symmetric, and one that bends to a side."""
    rng = np.random.default_rng(seed)
    wide = 0.15 * MEAN * np.array([1.0, 0, 0])
    bent = np.zeros_like(MEAN)
    bent[:, 0] = [0, 0, 0, 1, 1, 2]
    modes = np.stack([wide, bent])
    amounts = rng.normal(size=(n, 2))
    noise = noise_mm * rng.normal(size=(n, *MEAN.shape))
    return MEAN + np.einsum("nk,klc->nlc", amounts, modes) + noise, modes


def covariance(modes):
    flat = modes.reshape(len(modes), -1)
    return flat.T @ flat


def test_the_modes_that_were_put_in_come_out():
    shapes, modes = make_shapes(2000, noise_mm=0.2)
    model = shape_model.fit_shape_model(MEAN, shapes)
    np.testing.assert_allclose(covariance(model.modes_mm), covariance(modes), atol=0.25)
    assert model.noise_mm == pytest.approx(0.2, rel=0.1)


def test_absent_points_are_left_open():
    """With every third point absent the same modes come out, and the same noise."""
    shapes, modes = make_shapes(2000, noise_mm=0.2)
    shapes[np.random.default_rng(1).random(shapes.shape[:2]) < 0.33] = np.nan
    model = shape_model.fit_shape_model(MEAN, shapes)
    np.testing.assert_allclose(covariance(model.modes_mm), covariance(modes), atol=0.4)
    assert model.noise_mm < 0.25


def test_mirror_images_count():
    shapes, _ = make_shapes(40, noise_mm=0.2)
    model = shape_model.fit_shape_model(MEAN, shapes, MIRROR_INDEX)
    size = len(model.modes_mm)
    mirrored = (model.modes_mm[:, MIRROR_INDEX] * MIRROR).reshape(size, -1)
    flat = model.modes_mm.reshape(size, -1)
    np.testing.assert_allclose(mirrored.T @ mirrored, flat.T @ flat, atol=1e-6)


@pytest.mark.parametrize("n", [1, 4, 5, 12])
def test_few_cases_have_few_modes(n):
    shapes, _ = make_shapes(n, noise_mm=0.5)
    model = shape_model.fit_shape_model(MEAN, shapes)
    assert len(model.modes_mm) == n // shape_model.CASES_A_MODE
    expected = complete_shape(as_float32(model), np.float32(shapes[0]), np.ones(6, np.float32))
    assert np.isfinite(expected).all()
    if n < shape_model.CASES_A_MODE:
        np.testing.assert_allclose(expected, MEAN, atol=1e-6)


def as_float32(model):
    return ShapeModel(*(np.float32(value) for value in model))


def test_completion_is_the_gaussian_s_conditional_mean():
    """Against the formula with the covariance's inverse, in float64; weights divide the noise."""
    rng = np.random.default_rng(2)
    modes, noise = rng.normal(size=(3, 6, 3)), 0.7
    weights = np.array([1.0, 0.5, 1.0, 0.0, 0.25, 1.0])
    points = MEAN + rng.normal(size=MEAN.shape)
    seen = np.repeat(weights > 0, 3)
    cov = covariance(modes)
    error = np.diag(noise**2 / np.repeat(weights, 3)[seen])
    away = (points - MEAN).reshape(-1)[seen]
    gain = cov[:, seen] @ np.linalg.inv(cov[np.ix_(seen, seen)] + error)
    expected = MEAN + (gain @ away).reshape(MEAN.shape)
    points[3] = np.nan  # weighs nothing, and may be anything
    model = ShapeModel(MEAN, modes, noise)
    found = complete_shape(as_float32(model), *map(np.float32, (points, weights)))
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_hidden_point_follows_the_others():
    """Of 60 shapes whose first eye corner is hidden: nearer than the mean, to what noise allows."""
    shapes, modes = make_shapes(200, noise_mm=0.2)
    model = as_float32(shape_model.fit_shape_model(MEAN, shapes[:140], MIRROR_INDEX))
    weights = np.float32([1, 0, 1, 1, 1, 1])
    found = np.stack([complete_shape(model, np.float32(s), weights) for s in shapes[140:]])
    errors = np.linalg.norm(found[:, 1] - shapes[140:, 1], axis=-1).mean()
    of_mean = np.linalg.norm(MEAN[1] - shapes[140:, 1], axis=-1).mean()
    assert errors < 0.5 < 0.6 * of_mean
