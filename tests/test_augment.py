"""Augmentation: the volume and its landmarks move as one, in the way asked for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fetal_jax import augment

SHAPE = (17, 15, 13)
LIMITS = {
    "max_degrees": 25.0,
    "max_scale": 0.15,
    "max_shift_vox": 2.0,
    "max_gamma": 0.3,
    "max_gain": 0.2,
    "max_noise": 0.05,
}
move_points = jax.jit(augment.move_points, static_argnames="shape")
move_volume = jax.jit(augment.move_volume)
# limits as arguments: compiled once for all of them
augment_example = jax.jit(augment.augment, static_argnames="mirror")
sample_rotations = jax.jit(jax.vmap(augment.sample_rotation, in_axes=(0, None)))
sample_motions = jax.jit(
    jax.vmap(lambda key, limits: augment.sample_motion(key, **limits), in_axes=(0, None))
)


@partial(jax.jit, static_argnames="count")
def change_intensities(volume, count, **limits):
    keys = jax.random.split(jax.random.key(0), count)
    return jax.vmap(lambda key: augment.change_intensity(key, volume, **limits))(keys)


STILL = dict.fromkeys(LIMITS, 0.0)


def random_volume(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def motion(matrix=None, shift=(0.0, 0.0, 0.0)):
    matrix = np.eye(3) if matrix is None else matrix
    return augment.Motion(jnp.asarray(matrix, jnp.float32), jnp.asarray(shift, jnp.float32))


@pytest.mark.parametrize("max_degrees", [0.0, 14.0, 90.0, 180.0])
def test_rotations_are_rotations_of_the_right_angles(max_degrees):
    keys = jax.random.split(jax.random.key(3), 2000)
    matrices = np.asarray(sample_rotations(keys, max_degrees), np.float64)
    products = matrices @ matrices.transpose(0, 2, 1)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=2e-6)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=2e-6)

    # 2 sin θ times the axis; arctan2 stays exact for small angles
    twice = matrices - matrices.transpose(0, 2, 1)
    axis_sine = np.stack([twice[:, 2, 1], twice[:, 0, 2], twice[:, 1, 0]], axis=-1) / 2
    cosine = (np.trace(matrices, axis1=1, axis2=2) - 1) / 2
    angles = np.arctan2(np.linalg.norm(axis_sine, axis=1), cosine)
    limit = np.deg2rad(max_degrees)
    assert angles.max() <= limit + 1e-6
    if max_degrees:

        def share(angle):  # the integral of 1 - cos θ
            return (angle - np.sin(angle)) / (limit - np.sin(limit))

        assert stats.kstest(angles, share).pvalue > 0.01
        # a coordinate of a uniform direction is uniform in [-1, 1]
        axes = axis_sine / np.linalg.norm(axis_sine, axis=1, keepdims=True)
        for coordinate in axes.T:
            assert stats.kstest(coordinate, stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_motions_stay_within_their_limits():
    keys = jax.random.split(jax.random.key(0), 500)
    found = sample_motions(keys, {"max_degrees": 30.0, "max_scale": 0.2, "max_shift_vox": 3.0})
    scales = np.cbrt(np.linalg.det(np.asarray(found.matrix, np.float64)))
    assert 0.8 - 1e-5 <= scales.min() < 0.82 and 1.18 < scales.max() <= 1.2 + 1e-5
    shift = np.asarray(found.shift)
    assert shift.shape == (500, 3) and 2.9 < np.abs(shift).max() <= 3.0
    assert shift.min() < -2.9 and 2.9 < shift.max()


@pytest.mark.parametrize("wrap", [lambda f, **_: f, jax.jit], ids=["plain", "jit"])
def test_no_motion(wrap):
    volume, points = random_volume(), np.array([[1.0, 2.0, 3.0], [-4.0, 8.5, 30.0]], np.float32)
    np.testing.assert_array_equal(wrap(augment.move_volume)(volume, motion()), volume)
    moved = wrap(augment.move_points, static_argnames="shape")(points, motion(), SHAPE)
    np.testing.assert_allclose(moved, points, atol=1e-6)


# rot90 turns the first of its axes towards the second: e0 to e1, e1 to -e0
QUARTER_TURNS = {
    "90 degree rotation about W": ((0, 1), [[0, -1, 0], [1, 0, 0], [0, 0, 1]]),
    "90 degree rotation about D": ((1, 2), [[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "90 degree rotation about H": ((0, 2), [[0, 0, -1], [0, 1, 0], [1, 0, 0]]),
}


@pytest.mark.parametrize("case", QUARTER_TURNS.values(), ids=QUARTER_TURNS.keys())
@pytest.mark.parametrize("side", [8, 9])
def test_quarter_turn(case, side):
    axes, matrix = case
    volume = random_volume((side,) * 3)
    turned = np.asarray(move_volume(volume, motion(matrix)))
    np.testing.assert_array_equal(turned, np.rot90(volume, axes=axes))
    # each voxel lands where its intensity did
    voxels = np.indices(volume.shape).reshape(3, -1).T
    moved = np.asarray(move_points(voxels.astype(np.float32), motion(matrix), volume.shape))
    np.testing.assert_array_equal(turned[tuple(np.rint(moved).astype(int).T)], volume.reshape(-1))


@pytest.mark.parametrize(
    "shift", [(2, 0, 0), (0, -3, 0), (1, -2, 4), (0, 0, 13)], ids=lambda s: str(s)
)
def test_shift_by_whole_voxels(shift):
    volume = random_volume()
    expected = np.zeros_like(volume)
    to = tuple(slice(max(s, 0), n + min(s, 0)) for s, n in zip(shift, SHAPE, strict=True))
    of = tuple(slice(max(-s, 0), n - max(s, 0)) for s, n in zip(shift, SHAPE, strict=True))
    expected[to] = volume[of]
    np.testing.assert_array_equal(move_volume(volume, motion(shift=shift)), expected)
    moved = move_points(np.array([[5.0, 5.0, 5.0]], np.float32), motion(shift=shift), SHAPE)
    np.testing.assert_array_equal(moved, [np.add(5, shift)])


def test_half_a_voxel_is_the_mean_of_two():
    volume = random_volume()
    found = np.asarray(move_volume(volume, motion(shift=(0.5, 0.0, 0.0))))
    np.testing.assert_allclose(found[1:], (volume[1:] + volume[:-1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(found[0], volume[0] / 2, rtol=1e-6)  # outside is 0


def test_scale_about_the_centre():
    points = np.array([[8.0, 7.0, 6.0], [10.0, 7.0, 3.0]], np.float32)  # the centre, and another
    moved = move_points(points, motion(1.5 * np.eye(3)), SHAPE)
    np.testing.assert_allclose(moved, [[8, 7, 6], [11, 7, 1.5]], atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_a_blob_follows_its_landmark(seed):
    shape = (36, 32, 34)
    rng = np.random.default_rng(seed)
    point = (np.array(shape) - 1) / 2 + rng.uniform(-4, 4, 3)
    offsets = np.indices(shape) - point.reshape(3, 1, 1, 1)
    blob = np.exp(-(offsets**2).sum(axis=0) / (2 * 2.0**2)).astype(np.float32)
    limits = {"max_degrees": 180.0, "max_scale": 0.2, "max_shift_vox": 2.0}
    drawn = sample_motions(jax.random.split(jax.random.key(seed), 500), limits)
    drawn = augment.Motion(drawn.matrix[0], drawn.shift[0])
    moved = np.asarray(move_volume(blob, drawn), np.float64)
    centroid = (np.indices(shape) * moved).sum(axis=(1, 2, 3)) / moved.sum()
    expected = np.asarray(move_points(point[None].astype(np.float32), drawn, shape))[0]
    assert np.linalg.norm(centroid - expected) < 0.05


@pytest.mark.parametrize(
    ("volume", "expected"), [(0.0, 0.0), (1.0, 1.0), (0.25, 0.25), (-0.5, 0.0)], ids=str
)
def test_no_change_of_intensity(volume, expected):
    found = augment.change_intensity(
        jax.random.key(0), jnp.full(SHAPE, volume), max_gamma=0.0, max_gain=0.0, max_noise=0.0
    )
    np.testing.assert_allclose(found, np.full(SHAPE, expected), rtol=1e-6)


def test_gain_and_gamma_stay_within_their_limits():
    volume = jnp.full((12, 12, 12), 0.5).at[0, 0, 1].set(1.0)
    found = change_intensities(volume, 100, max_gamma=0.5, max_gain=0.2, max_noise=0.0)
    found = np.asarray(found, np.float64)
    half, gain = found[:, 0, 0, 0], found[:, 0, 0, 1]
    assert 1 / 1.2 - 1e-5 <= gain.min() < 0.85 and 1.18 < gain.max() <= 1.2 + 1e-5
    gamma = np.log(half / gain) / np.log(0.5)
    assert 1 / 1.5 - 1e-4 <= gamma.min() < 0.69 and 1.45 < gamma.max() <= 1.5 + 1e-4


def test_noise_has_a_standard_deviation_within_its_limit():
    volume = jnp.full((12, 12, 12), 0.5)
    found = change_intensities(volume, 100, max_gamma=0.0, max_gain=0.0, max_noise=0.1)
    found = np.asarray(found, np.float64)
    sd = found.std(axis=(1, 2, 3))
    assert sd.min() < 0.01 and 0.09 < sd.max() < 0.105
    assert np.abs(found.mean(axis=(1, 2, 3)) - 0.5).max() < 4 * 0.1 / np.sqrt(12**3)


def test_augment_is_decided_by_its_key():
    volume, points, counted = random_volume(), np.full((8, 3), 5.0, np.float32), np.ones(8, bool)
    first, again, other = (
        augment_example(jax.random.key(k), volume, points, counted, **LIMITS) for k in (1, 1, 2)
    )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(first[0] - other[0]).max() > 0.1
    assert np.abs(first[1] - other[1]).max() > 0.01


@pytest.mark.parametrize(
    "volume", [np.zeros(SHAPE), np.ones(SHAPE), random_volume()], ids=["zeros", "ones", "random"]
)
def test_augment_keeps_shapes_and_finite_values(volume):
    points, counted = np.zeros((8, 3), np.float32), np.ones(8, bool)
    limits = LIMITS | {"max_degrees": 180.0}
    for seed in range(5):
        moved, moved_points, inside = augment_example(
            jax.random.key(seed), volume.astype(np.float32), points, counted, **limits
        )
        assert moved.shape == SHAPE and moved.dtype == jnp.float32
        assert moved_points.shape == (8, 3) and inside.shape == (8,) and inside.dtype == bool
        assert np.isfinite(moved).all() and np.isfinite(moved_points).all()


def test_points_pushed_out_are_said_to_be_outside():
    points = {
        (0.0, 0.0, 0.0): True,
        (16.0, 14.0, 12.0): True,
        (-0.49, 7.0, 6.0): True,  # a voxel reaches half a step beyond its centre
        (8.0, 14.49, 6.0): True,
        (-0.51, 7.0, 6.0): False,
        (8.0, 14.51, 6.0): False,
        (8.0, 7.0, 12.6): False,
        (8.0, -90.0, 6.0): False,
    }
    given, counted = np.array(list(points), np.float32), np.ones(len(points), bool)
    key, volume = jax.random.key(0), random_volume()
    _, moved, inside = augment_example(key, volume, given, counted, **STILL)
    np.testing.assert_allclose(moved, given, atol=1e-5)
    assert inside.tolist() == list(points.values())

    _, _, inside = augment_example(key, volume, given, ~counted, **STILL)
    assert not inside.any()  # what did not count before does not count now

    pushed = STILL | {"max_shift_vox": 20.0}
    _, moved, inside = augment_example(key, volume, given, counted, **pushed)
    moved = np.asarray(moved)
    expected = ((moved >= -0.5) & (moved <= np.array(SHAPE) - 0.5)).all(axis=1)
    assert np.abs(moved - given).max() > 1
    assert inside.tolist() == expected.tolist()


def test_mirrored_examples_change_sides_and_names():
    volume = random_volume()
    points = np.array([[8.0, 3.0, 4.0], [2.0, 5.0, 6.0], [13.0, 7.0, 8.0]], np.float32)
    counted = np.array([True, True, False])
    mirror = (0, 2, 1)  # one in the middle, a left, a right
    flips = 0
    for seed in range(40):
        found = augment_example(
            jax.random.key(seed), volume, points, counted, mirror=mirror, **STILL
        )
        if np.array_equal(found[0], volume):
            expected = volume, points, counted
        else:
            flips += 1
            other = [[8.0, 3.0, 4.0], [16 - 13.0, 7.0, 8.0], [16 - 2.0, 5.0, 6.0]]
            expected = volume[::-1], other, [True, False, True]
        np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-5)
        np.testing.assert_array_equal(found[2], expected[2])
    assert 10 <= flips <= 30  # binomial(40, 1/2) lies outside once in 500


MISUSES = {
    "one point": lambda: augment.move_points(jnp.zeros(3), motion(), SHAPE),
    "points in two dimensions": lambda: augment.move_points(jnp.zeros((4, 2)), motion(), SHAPE),
    "volume with channels": lambda: augment.move_volume(jnp.zeros((*SHAPE, 1)), motion()),
    "a batch to augment": lambda: jax.eval_shape(
        partial(augment.augment, **LIMITS),
        *(jax.random.key(0), jnp.zeros((2, *SHAPE)), jnp.zeros((2, 4, 3)), jnp.ones((2, 4))),
    ),
}


@pytest.mark.parametrize("call", MISUSES.values(), ids=MISUSES.keys())
def test_misuse(call):
    with pytest.raises(ValueError, match="expected .* got"):
        call()
