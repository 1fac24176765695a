"""Elastic deformation: a bijection up to the largest strain; landmarks go with the volume."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.interpolate import BSpline

from fetal_jax import augment, elastic
from fetal_jax.examples import Examples

SHAPE = (31, 28, 25)
SPACING = 10.0  # of SHAPE: two ends and two points between
HARDEST = elastic.random_elastic(max_strain=elastic.MAX_STRAIN)
POINTS = np.random.default_rng(0).uniform(-2, 33, (40, 3)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 200)
SPLINE = BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)
SLOPE = SPLINE.derivative()


def make_example(volume=None, points=POINTS):
    there = np.ones(len(points), bool)
    volume = np.zeros(SHAPE, np.float32) if volume is None else np.float32(volume)
    return Examples(volume, points_vox=points, present=there, visible=there)


def pull_points(warp, points):
    return jnp.stack(warp.pull(list(points.T)), axis=1)


@jax.jit
def sample_undone(keys):
    """Per key: where the points go, those brought back, and the points gone to and fro."""

    def undo(key):
        warp, _ = HARDEST.sample(key, make_example())
        pushed = warp.push(POINTS)
        return pushed, pull_points(warp, pushed), warp.push(pull_points(warp, POINTS))

    return jax.lax.map(undo, keys)


def test_the_inverse_holds_within_a_hundredth_of_a_voxel_at_the_largest_strain():
    pushed, back, forth = jax.device_get(sample_undone(KEYS))
    assert np.abs(back - POINTS).max() < 0.01 and np.abs(forth - POINTS).max() < 0.01
    assert np.abs(pushed - POINTS).max() > 2  # voxels, of a side of 31
    assert np.abs(pushed - POINTS).mean() > 0.3


def weigh(t, slope=None):
    """Numbers [4, 4, 4] of the control points about a place t [3], in spacings; or their slope."""
    parts = [(SLOPE if axis == slope else SPLINE)(t[axis] - np.arange(-1, 3)) for axis in range(3)]
    return np.einsum("i,j,k->ijk", *(np.nan_to_num(part) for part in parts))


def steepen(t):
    """Σ over the axes of each control point's slope there."""
    return sum(weigh(t, axis) for axis in range(3))


def test_the_bound_is_the_largest_sum_of_slopes():
    ticks = np.linspace(0, 1, 11)[:-1]
    found = [np.abs(steepen(t)).sum() for t in itertools.product(ticks, repeat=3)]
    assert 2.4 < max(found) <= elastic.K
    at = 0.8359338  # where scipy's Nelder-Mead ends from the best of these
    assert np.abs(steepen([at] * 3)).sum() == pytest.approx(elastic.K, abs=1e-8)


WORST = SPACING * np.full(3, 1.8359338, np.float32)  # in the middle of the control points


def make_worst(strain):
    """Control points as adverse as the bound allows: all pull one way about WORST."""
    controls = np.zeros((6, 6, 6, 3), np.float32)
    signs = np.sign(steepen(WORST / SPACING - 1))
    controls[1:5, 1:5, 1:5] = -(strain * SPACING / elastic.K * signs)[..., None]
    return elastic.make_warp(controls, SPACING, strain)


@pytest.mark.parametrize("strain", [0.3, elastic.MAX_STRAIN])
def test_the_worst_control_points_reach_the_bound_and_are_undone(strain):
    warp = make_worst(strain)
    ends = WORST + np.float32(0.05) * np.array([[-1.0], [1.0]], np.float32)
    pulled = np.asarray(pull_points(warp, ends))
    shrunk = 1 - (pulled[1] - pulled[0]) / (ends[1] - ends[0])
    np.testing.assert_allclose(shrunk, strain, atol=2e-3)
    points = np.float32(WORST + np.random.default_rng(1).normal(0, 4, (500, 3)))
    back = np.asarray(jax.jit(warp.push)(pull_points(warp, points)))
    assert np.abs(back - points).max() < 0.01


def test_no_two_places_come_nearer_than_the_strain_allows():
    rng = np.random.default_rng(2)
    first = np.float32(rng.uniform(0, 30, (2000, 3)))
    second = np.float32(first + rng.uniform(-3, 3, first.shape))

    @jax.jit
    def pull_both(keys):
        def pull(key):
            warp, _ = HARDEST.sample(key, make_example())
            return pull_points(warp, first) - first, pull_points(warp, second) - second

        return jax.lax.map(pull, keys)

    by_first, by_second = jax.device_get(pull_both(KEYS[:50]))
    apart = np.abs(first - second).max(axis=-1)
    share = np.abs(by_first - by_second).max(axis=-1) / apart
    assert 0.2 < share.max() <= elastic.MAX_STRAIN + 1e-4


def test_a_volume_made_of_a_formula_follows_its_points():
    """Deformed, three volumes of the coordinates say of each place where it comes from.

    They are read between voxels by scipy's cubic splines, where the pushed points are.
    """
    index = np.indices(SHAPE).astype(np.float32)
    points = np.float32(np.random.default_rng(3).uniform(8, 18, (30, 3)))

    @jax.jit
    def deform(keys):
        def both(key):
            moved = [HARDEST(key, make_example(along, points)) for along in index]
            return jnp.stack([each.volumes for each in moved]), moved[0].points_vox

        return jax.lax.map(both, keys)

    for volumes, pushed in zip(*jax.device_get(deform(KEYS[:40])), strict=True):
        found = [ndimage.map_coordinates(v, pushed.T, order=3, mode="nearest") for v in volumes]
        np.testing.assert_allclose(np.transpose(found), points, atol=0.01)


def test_u_is_the_spline_of_scipy():
    controls = np.float32(np.random.default_rng(4).uniform(-0.5, 0.5, (6, 6, 6, 3)))
    warp = elastic.make_warp(controls, SPACING, 0.9)
    at = np.float32([[0.0, 4.0, 29.9], [13.0, 10.0, 20.5], [500.0, 3.0, 3.0]])
    found = np.asarray(pull_points(warp, at)) - at
    expected = np.zeros((3, 3))
    for point, total in zip(at, expected, strict=True):
        for place in np.ndindex(6, 6, 6):
            weight = np.prod(np.nan_to_num(SPLINE(point / SPACING - (np.array(place) - 1))))
            total += weight * controls[place]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert not found[2].any()  # far away nothing moves


def test_a_grid_s_own_axes_are_places_like_any():
    """Arrays that broadcast, as a chain's last member gets them, and the voxels one by one."""
    warp, _ = HARDEST.sample(jax.random.key(5), make_example())
    ticks = [np.arange(n, dtype=np.float32) for n in SHAPE]
    axes = ticks[0][:, None, None], ticks[1][None, :, None], ticks[2][None, None, :]
    found = np.stack(jax.jit(warp.pull)(axes), axis=-1)
    alone = pull_points(warp, np.indices(SHAPE).reshape(3, -1).T.astype(np.float32))
    np.testing.assert_allclose(found.reshape(-1, 3), alone, atol=1e-4)


def test_no_strain_moves_nothing():
    volume = np.random.default_rng(6).uniform(size=SHAPE).astype(np.float32)
    points = np.clip(POINTS, 0, 24)
    still = jax.jit(elastic.random_elastic(max_strain=0.0))
    found = still(jax.random.key(0), make_example(volume, points))
    np.testing.assert_array_equal(found.volumes, volume)
    np.testing.assert_array_equal(found.points_vox, points)


def test_with_a_motion_the_volume_is_sampled_once(monkeypatch):
    calls, sample = [], augment.map_coordinates
    monkeypatch.setattr(
        augment, "map_coordinates", lambda *a, **k: calls.append(1) or sample(*a, **k)
    )
    motion = augment.random_motion(max_degrees=20.0, max_scale=0.1, max_shift_vox=2.0)
    for members in ((HARDEST, motion), (motion, HARDEST)):
        calls.clear()
        jax.eval_shape(augment.chain(*members), jax.random.key(0), make_example())
        assert len(calls) == 1


def test_a_batch_is_its_examples():
    volumes = np.random.default_rng(7).uniform(size=(3, *SHAPE)).astype(np.float32)
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *map(make_example, volumes))
    found = jax.jit(jax.vmap(HARDEST))(KEYS[:3], batch)
    for i, volume in enumerate(volumes):
        alone = jax.jit(HARDEST)(KEYS[i], make_example(volume))
        np.testing.assert_allclose(found.volumes[i], alone.volumes, atol=1e-4)
        np.testing.assert_allclose(found.points_vox[i], alone.points_vox, atol=0.01)
        np.testing.assert_array_equal(found.present[i], alone.present)
    assert np.abs(found.points_vox[0] - found.points_vox[1]).max() > 0.5  # each has its own


@pytest.mark.parametrize("strain", [-0.1, 0.91, 1.0, float("nan")])
def test_a_strain_that_could_fold_is_refused(strain):
    with pytest.raises(ValueError, match="expected a strain from 0 to 0.9, got"):
        elastic.random_elastic(max_strain=strain)


def test_a_batch_is_no_example():
    with pytest.raises(ValueError, match=r"expected a volume \[D, H, W\], got"):
        HARDEST(jax.random.key(0), make_example(np.zeros((2, *SHAPE))))


def test_control_points_of_three_numbers():
    with pytest.raises(ValueError, match=r"expected control points \[N, N, N, 3\], got"):
        elastic.make_warp(np.zeros((6, 6, 6), np.float32), SPACING, 0.5)
