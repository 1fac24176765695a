"""The same grid as preprocess's numpy and scipy, for every size and affine, and NaN for no grid."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scans import SCANS, SETTINGS, make_noise
from scipy import ndimage
from volumes import turn

from fetal_jax.data import preprocess_jax
from fetal_jax.data.preprocess import prepare_volume
from fetal_jax.frames import Similarity
from fetal_jax.geometry import Grid, align_grid, apply_affine, centre_grid
from fetal_jax.io.volumes import Volume


@jax.jit
def prepare(voxels, affine):
    scaled = preprocess_jax.scale_volume(voxels, affine, SETTINGS.percentiles)
    box = preprocess_jax.centre_box(SETTINGS.side, SETTINGS.spacing_mm)
    return preprocess_jax.sample_box(scaled, box, preprocess_jax.IDENTITY)


@pytest.mark.parametrize("name", SCANS)
def test_the_grid_is_that_of_preprocess(name):
    shape, affine = SCANS[name]
    voxels = make_noise(shape)
    grid = centre_grid(shape, affine, side=SETTINGS.side, spacing_mm=SETTINGS.spacing_mm)
    expected = prepare_volume(Volume(voxels, affine, Path(name)), grid, SETTINGS.percentiles)
    found = prepare(voxels.astype(np.float32), affine.astype(np.float32))
    assert expected.max() > 0.2  # something to see
    # half a step of float16 below 1, in which both are handed on, and float32 on the way
    np.testing.assert_allclose(found, expected, atol=2.0**-12 + 2e-4)
    np.testing.assert_array_equal(found, np.asarray(found).astype(np.float16))


@jax.jit
def prepare_in_frame(voxels, affine, frame):
    scaled = preprocess_jax.scale_volume(voxels, affine, SETTINGS.percentiles)
    return preprocess_jax.sample_box(scaled, BOX, frame)


BOX = align_grid((6, 8, 10), 1.7, np.array([-4.0, -6.5, -7.0]))


@pytest.mark.parametrize("name", ["as trained", "oblique, far away", "anisotropic, oblique"])
def test_a_box_in_a_frame_is_that_of_preprocess(name):
    """Turned, larger and beside the middle."""
    shape, affine = SCANS[name]
    voxels = make_noise(shape)
    rotation = turn(np.eye(4))[:3, :3]
    shift = np.array([1.5, -2.0, 0.5])
    frame = Similarity(*(np.float32(value) for value in (1.2, rotation, shift)))
    placed = np.eye(4)
    placed[:3, :3] = 1.2 * rotation
    placed[:3, 3] = apply_affine(affine, (np.array(shape) - 1) / 2) + shift
    grid = Grid(BOX.shape, placed @ BOX.affine)
    expected = prepare_volume(Volume(voxels, affine, Path(name)), grid, SETTINGS.percentiles)
    found = prepare_in_frame(voxels.astype(np.float32), affine.astype(np.float32), frame)
    assert expected.max() > 0.2
    np.testing.assert_allclose(found, expected, atol=2.0**-12 + 1e-3)


@pytest.mark.parametrize("spoil", ["no contrast", "not a number", "infinite", "singular", "no mm"])
def test_what_preprocess_would_refuse_is_nan(spoil):
    shape, affine = SCANS["as trained"]
    voxels, affine = make_noise(shape).astype(np.float32), affine.astype(np.float32)
    if spoil == "singular":
        affine[:3, 0] = affine[:3, 1]
    elif spoil == "no mm":
        affine[1, 3] = np.nan
    else:
        place = ... if spoil == "no contrast" else (0, 0, 0)
        voxels[place] = {"not a number": np.nan, "infinite": np.inf}.get(spoil, 7.0)
    assert np.isnan(prepare(voxels, affine)).all()


def test_the_centre_of_a_volume():
    np.testing.assert_array_equal(preprocess_jax.centre_voxel(jnp.zeros((4, 5, 1))), [1.5, 2, 0])


@pytest.mark.parametrize("sigma", [0.0, 0.3, 0.8, 2.5, 9.0])
@pytest.mark.parametrize("size", [1, 5, 40])
def test_the_matrix_is_the_gaussian_filter(size, sigma):
    """A σ of 9 reaches 36 voxels: many times mirrored in a line of 5."""
    line = np.random.default_rng(0).random(size)
    smoothing_matrix = jax.jit(preprocess_jax.smoothing_matrix, static_argnums=0)
    matrix = smoothing_matrix(size, jnp.float32(sigma))
    expected = ndimage.gaussian_filter1d(line, sigma) if sigma else line
    np.testing.assert_allclose(np.asarray(matrix, np.float64) @ line, expected, atol=1e-6)


@pytest.mark.parametrize("select", [None, preprocess_jax.sort_value])
@pytest.mark.parametrize("percent", [0.0, 0.5, 37.3, 99.5, 100.0])
def test_percentiles_are_those_of_numpy(percent, select):
    rng = np.random.default_rng(0)
    find = jax.jit(preprocess_jax.compute_percentile, static_argnums=(1, 2))
    for values in (
        rng.normal(size=(5, 5, 10)),
        rng.integers(-3, 4, (5, 5, 10)),  # ties
        rng.uniform(-1e30, 1e30, (5, 5, 10)),
        np.array([-2.0]),
    ):
        values = values.astype(np.float32)
        expected = np.percentile(values.astype(np.float64), percent)
        np.testing.assert_allclose(find(values, percent, select), expected, rtol=1e-6)


def test_a_selected_value_is_the_sorted_one():
    values = np.array([0.0, -0.0, 3.5, -1e-40, 1e38, -2.0, 3.5, -1e38], np.float32)
    select = jax.jit(preprocess_jax.select_value)
    for place, expected in enumerate(np.sort(values)):
        assert float(select(values, jnp.int32(place))) == pytest.approx(
            float(expected), rel=1e-6, abs=1e-38
        )
