"""Augmentation: the volume and its landmarks move as one, in the way asked for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from fetal_jax import augment
from fetal_jax.examples import Examples

SHAPE = (17, 15, 13)
MOTION = {"max_degrees": 25.0, "max_scale": 0.15, "max_shift_vox": 2.0}
INTENSITY = {"max_gamma": 0.3, "max_gain": 0.2, "max_noise": 0.05}
LIMITS = MOTION | INTENSITY
move_points = jax.jit(augment.move_points, static_argnames="shape")
move_volume = jax.jit(augment.move_volume)


# one key after the other: random numbers under vmap are slow to compile


@jax.jit
def sample_rotations(keys, max_degrees):
    return jax.lax.map(lambda key: augment.sample_rotation(key, max_degrees), keys)


@jax.jit
def sample_motions(keys, limits):
    return jax.lax.map(lambda key: augment.sample_motion(key, **limits), keys)


@partial(jax.jit, static_argnames="mirror")
def augment_example(key, example, limits, mirror=None):
    """What the config chains; limits as arguments, so that it is compiled once for all of them."""
    members = [
        augment.random_motion(**{name: limits[name] for name in MOTION}),
        augment.random_intensity(**{name: limits[name] for name in INTENSITY}),
    ]
    if mirror is not None:
        members.append(augment.random_flip(mirror))
    return augment.chain(*members)(key, example)


@partial(jax.jit, static_argnames="count")
def change_intensities(volume, count, **limits):
    keys = jax.random.split(jax.random.key(0), count)
    return jax.lax.map(lambda key: augment.change_intensity(key, volume, **limits), keys)


STILL = dict.fromkeys(LIMITS, 0.0)


# as many in every test that can, for each number is compiled
EIGHT = np.random.default_rng(8).uniform(3, 9, (8, 3))
MIRROR = (0, 2, 1, 3, 4, 5, 6, 7)  # one in the middle, a left, a right


def random_volume(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def make_example(volume=None, points=None, present=None, visible=None):
    points = np.asarray(EIGHT if points is None else points, np.float32)
    present = np.ones(len(points), bool) if present is None else np.asarray(present)
    return Examples(
        volumes=random_volume() if volume is None else volume,
        affines=np.diag([-2.0, 2.0, 2.0, 1.0]).astype(np.float32),
        points_vox=points,
        present=present,
        visible=present if visible is None else np.asarray(visible),
    )


def motion(matrix=None, shift=(0.0, 0.0, 0.0)):
    matrix = np.eye(3) if matrix is None else matrix
    return augment.Motion(np.float32(matrix), np.float32(shift))


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
    drawn = augment.Motion(np.asarray(drawn.matrix)[0], np.asarray(drawn.shift)[0])
    moved = np.asarray(move_volume(blob, drawn), np.float64)
    centroid = (np.indices(shape) * moved).sum(axis=(1, 2, 3)) / moved.sum()
    expected = np.asarray(move_points(point[None].astype(np.float32), drawn, shape))[0]
    assert np.linalg.norm(centroid - expected) < 0.05


@pytest.mark.parametrize(
    ("volume", "expected"), [(0.0, 0.0), (1.0, 1.0), (0.25, 0.25), (-0.5, 0.0)], ids=str
)
def test_no_change_of_intensity(volume, expected):
    volume = np.full((12, 12, 12), volume, np.float32)
    found = change_intensities(volume, 100, max_gamma=0.0, max_gain=0.0, max_noise=0.0)
    np.testing.assert_allclose(found, np.full((100, 12, 12, 12), expected), rtol=1e-6)


def test_gain_and_gamma_stay_within_their_limits():
    volume = np.full((12, 12, 12), 0.5, np.float32)
    volume[0, 0, 1] = 1.0
    found = change_intensities(volume, 100, max_gamma=0.5, max_gain=0.2, max_noise=0.0)
    found = np.asarray(found, np.float64)
    half, gain = found[:, 0, 0, 0], found[:, 0, 0, 1]
    assert 1 / 1.2 - 1e-5 <= gain.min() < 0.85 and 1.18 < gain.max() <= 1.2 + 1e-5
    gamma = np.log(half / gain) / np.log(0.5)
    assert 1 / 1.5 - 1e-4 <= gamma.min() < 0.69 and 1.45 < gamma.max() <= 1.5 + 1e-4


def test_noise_has_a_standard_deviation_within_its_limit():
    volume = np.full((12, 12, 12), 0.5, np.float32)
    found = change_intensities(volume, 100, max_gamma=0.0, max_gain=0.0, max_noise=0.1)
    found = np.asarray(found, np.float64)
    sd = found.std(axis=(1, 2, 3))
    assert sd.min() < 0.01 and 0.09 < sd.max() < 0.105
    assert np.abs(found.mean(axis=(1, 2, 3)) - 0.5).max() < 4 * 0.1 / np.sqrt(12**3)


def test_an_example_is_decided_by_its_key():
    first, again, other = (
        augment_example(jax.random.key(k), make_example(), LIMITS) for k in (1, 1, 2)
    )
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    first, other = jax.device_get((first, other))
    assert np.abs(first.volumes - other.volumes).max() > 0.1
    assert np.abs(first.points_vox - other.points_vox).max() > 0.01


@pytest.mark.parametrize(
    "volume", [np.zeros(SHAPE), np.ones(SHAPE), random_volume()], ids=["zeros", "ones", "random"]
)
def test_shapes_stay_and_values_are_finite(volume):
    example = make_example(volume.astype(np.float32), np.zeros((8, 3)))
    limits = LIMITS | {"max_degrees": 180.0}
    for seed in range(5):
        found = augment_example(jax.random.key(seed), example, limits)
        for name, before in example._asdict().items():
            after = getattr(found, name)
            if before is None:
                assert after is None
                continue
            assert after.shape == before.shape and after.dtype == before.dtype
            assert np.isfinite(after).all()
        np.testing.assert_array_equal(found.affines, example.affines)


POINTS = {
    (0.0, 0.0, 0.0): True,
    (16.0, 14.0, 12.0): True,
    (-0.49, 7.0, 6.0): True,  # a voxel reaches half a step beyond its centre
    (8.0, 14.49, 6.0): True,
    (-0.51, 7.0, 6.0): False,
    (8.0, 14.51, 6.0): False,
    (8.0, 7.0, 12.6): False,
    (8.0, -90.0, 6.0): False,
}


def test_what_leaves_the_volume_is_neither_present_nor_visible():
    given, inside = np.array(list(POINTS), np.float32), np.array(list(POINTS.values()))
    key, every, odd = jax.random.key(0), np.ones(8, bool), np.arange(8) % 2 == 1
    found = augment_example(key, make_example(points=given, visible=odd), STILL)
    np.testing.assert_allclose(found.points_vox, given, atol=1e-5)
    np.testing.assert_array_equal(found.present, inside)
    np.testing.assert_array_equal(found.visible, inside & odd)

    none = augment_example(key, make_example(points=given, present=~every), STILL)
    assert not none.present.any()  # what was absent stays so

    pushed = augment_example(key, make_example(points=given), STILL | {"max_shift_vox": 20.0})
    moved = np.asarray(pushed.points_vox)
    expected = ((moved >= -0.5) & (moved <= np.array(SHAPE) - 0.5)).all(axis=1)
    assert np.abs(moved - given).max() > 1
    assert pushed.present.tolist() == pushed.visible.tolist() == expected.tolist()


def test_mirrored_examples_change_sides_and_names():
    points = np.full((8, 3), 8.0)  # the other five stay where they are
    points[:3] = [[8.0, 3.0, 4.0], [2.0, 5.0, 6.0], [13.0, 7.0, 8.0]]
    present, visible = np.ones(8, bool), np.ones(8, bool)
    present[2], visible[1:3] = False, False
    example = make_example(points=points, present=present, visible=visible)
    flips = 0
    for seed in range(40):
        found = augment_example(jax.random.key(seed), example, STILL, MIRROR)
        expected = example
        if not np.array_equal(found.volumes, example.volumes):
            flips += 1
            other = points.copy()
            other[1:3] = [[16 - 13.0, 7.0, 8.0], [16 - 2.0, 5.0, 6.0]]
            expected = Examples(
                volumes=example.volumes[::-1],
                points_vox=other,
                present=np.arange(8) != 1,
                visible=visible,
            )
        np.testing.assert_allclose(found.volumes, expected.volumes, atol=1e-6)
        np.testing.assert_allclose(found.points_vox, expected.points_vox, atol=1e-5)
        np.testing.assert_array_equal(found.present, expected.present)
        np.testing.assert_array_equal(found.visible, expected.visible)
    assert 10 <= flips <= 30  # binomial(40, 1/2) lies outside once in 500


def test_without_flips_the_other_members_draw_the_same():
    """A member's key is that of its place: one more behind it changes nothing."""
    example, same = make_example(), 0
    for seed in range(12):
        plain = augment_example(jax.random.key(seed), example, LIMITS)
        found = augment_example(jax.random.key(seed), example, LIMITS, MIRROR)
        if np.allclose(found.points_vox, plain.points_vox, atol=1e-5):  # not flipped
            np.testing.assert_allclose(found.volumes, plain.volumes, atol=1e-5)
            same += 1
    assert 2 <= same <= 10


# ---- chains ----


def fixed(moved):
    """A member that always does the same."""
    return augment.Spatial(lambda key, example: (moved, example))


TURN = motion(QUARTER_TURNS["90 degree rotation about W"][1])
CUBE = (9, 9, 9)


def test_the_last_member_acts_first():
    """A quarter turn and a shift by whole voxels, where two samplings lose nothing."""
    example, shift = make_example(random_volume(CUBE)), motion(shift=(1.0, -2.0, 0.0))
    for last, first in ((TURN, shift), (shift, TURN)):
        both = jax.jit(augment.chain(fixed(last), fixed(first)))
        found = both(jax.random.key(0), example)
        expected = move_volume(move_volume(example.volumes, first), last)
        np.testing.assert_allclose(found.volumes, expected, atol=1e-6)
        points = move_points(move_points(example.points_vox, first, CUBE), last, CUBE)
        np.testing.assert_allclose(found.points_vox, points, atol=1e-5)
        other = move_volume(move_volume(example.volumes, last), first)
        assert np.abs(np.asarray(other) - np.asarray(expected)).max() > 0.1  # the order counts


def test_composed_motions_are_one_after_the_other():
    points = np.random.default_rng(0).uniform(0, 12, (5, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(7), 500)
    drawn = sample_motions(keys, {"max_degrees": 180.0, "max_scale": 0.3, "max_shift_vox": 4.0})
    first, then = (jax.tree.map(lambda x, i=i: np.asarray(x)[i::2], drawn) for i in range(2))

    @jax.jit
    @jax.vmap
    def both(first, then):
        composed = augment.compose_motions(first, then)
        one = augment.move_points(points, composed, SHAPE)
        return one, augment.move_points(augment.move_points(points, first, SHAPE), then, SHAPE)

    one, two = both(first, then)
    np.testing.assert_allclose(one, two, atol=1e-4)


def bend(points):
    """How far along the first axis a place is pushed, from its second coordinate."""
    return 1.5 * np.sin(points / 3)


WARP = augment.Warp(
    pull=lambda places: (places[0] - 1.5 * jnp.sin(places[1] / 3), *places[1:]),
    push=lambda points: points.at[:, 0].add(1.5 * jnp.sin(points[:, 1] / 3)),
)


def test_a_warp_among_motions_moves_points_exactly_and_samples_once(monkeypatch):
    """A motion, then a warp, then another motion, against scipy at the places that they undo."""
    calls, sample = [], augment.map_coordinates
    monkeypatch.setattr(
        augment, "map_coordinates", lambda *a, **k: calls.append(1) or sample(*a, **k)
    )
    points = np.random.default_rng(0).uniform(4, 8, (5, 3))
    keys = jax.random.split(jax.random.key(2), 500)
    drawn = jax.device_get(sample_motions(keys, MOTION))
    first, then = (augment.Motion(drawn.matrix[i], drawn.shift[i]) for i in range(2))
    augmentation = augment.chain(fixed(then), fixed(WARP), fixed(first))
    found = jax.jit(augmentation)(jax.random.key(0), make_example(points=points))
    assert len(calls) == 1

    centre = (np.array(SHAPE) - 1) / 2
    matrices = [np.asarray(m.matrix, np.float64) for m in (first, then)]
    shifts = [np.asarray(m.shift, np.float64) for m in (first, then)]
    at = (points - centre) @ matrices[0].T + centre + shifts[0]
    at[:, 0] += bend(at[:, 1])
    at = (at - centre) @ matrices[1].T + centre + shifts[1]
    np.testing.assert_allclose(found.points_vox, at, atol=1e-4)

    back = np.indices(SHAPE).reshape(3, -1).T - centre - shifts[1]
    back = back @ np.linalg.inv(matrices[1]).T + centre
    back[:, 0] -= bend(back[:, 1])
    back = (back - centre - shifts[0]) @ np.linalg.inv(matrices[0]).T + centre
    expected = ndimage.map_coordinates(random_volume(), back.T, order=1, mode="grid-constant")
    np.testing.assert_allclose(found.volumes, expected.reshape(SHAPE), atol=1e-4)


def test_the_volume_is_sampled_once_in_a_chain(monkeypatch):
    calls, sample = [], augment.map_coordinates
    monkeypatch.setattr(
        augment, "map_coordinates", lambda *a, **k: calls.append(1) or sample(*a, **k)
    )
    members = [
        augment.random_motion(**MOTION),
        augment.random_intensity(**INTENSITY),
        augment.random_flip((0,)),
        fixed(WARP),
    ]
    for augmentation, times in (
        (augment.chain(*members), 1),
        (members[0], 1),  # a spatial one is an augmentation by itself
        (members[1], 0),
        (augment.chain(members[1]), 0),
        (augment.chain(members[0], augment.chain(*members[2:])), 2),  # a chain, its own once
    ):
        calls.clear()
        jax.eval_shape(augmentation, jax.random.key(0), make_example())
        assert len(calls) == times


def remember(seen):
    """A plain member that keeps its key and changes nothing."""
    return lambda key, example: seen.append(jax.random.key_data(key).tolist()) or example


def test_a_key_for_each_place():
    drawn = []
    for count in (1, 2, 5):
        seen = []
        augment.chain(*[remember(seen) for _ in range(count)])(jax.random.key(0), make_example())
        drawn.append(seen)
    assert drawn[2][:1] == drawn[0] and drawn[2][:2] == drawn[1]
    assert len(set(map(tuple, drawn[2]))) == 5


def test_a_chain_is_a_member_and_a_plain_function():
    """Plain members run in their order, after what moves; a chain among them with its own keys."""

    def add(number):
        return lambda key, example: example._replace(volumes=10 * example.volumes + number)

    seen = []
    inner = augment.chain(add(2), remember(seen), add(3))
    outer = augment.chain(add(1), inner, fixed(TURN), add(4))
    found = outer(jax.random.key(0), make_example(np.zeros(CUBE, np.float32), [[2.0, 3.0, 4.0]]))
    np.testing.assert_array_equal(found.volumes, np.full(CUBE, 1234.0))
    np.testing.assert_allclose(found.points_vox, [[4 - (3 - 4), 4 + (2 - 4), 4.0]], atol=1e-6)
    own = jax.random.split(jax.random.split(jax.random.key(0), 4)[1], 3)[1]
    assert seen == [jax.random.key_data(own).tolist()]


def test_a_batch_is_its_examples():
    """Under vmap each has its own key; what is not known stays so."""
    keys = jax.random.split(jax.random.key(3), 3)
    examples = [make_example(random_volume(seed=i), EIGHT + i / 2) for i in range(3)]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *examples)
    found = jax.jit(jax.vmap(augment_example, in_axes=(0, 0, None)))(keys, batch, LIMITS)
    for i, example in enumerate(examples):
        alone = augment_example(keys[i], example, LIMITS)
        np.testing.assert_allclose(found.volumes[i], alone.volumes, atol=1e-5)
        np.testing.assert_allclose(found.points_vox[i], alone.points_vox, atol=1e-5)
    assert found.places is None and found.shown is None


MISUSES = {
    "one point": lambda: augment.move_points(np.zeros(3), motion(), SHAPE),
    "points in two dimensions": lambda: augment.move_points(np.zeros((4, 2)), motion(), SHAPE),
    "volume with channels": lambda: augment.move_volume(np.zeros((*SHAPE, 1)), motion()),
    "a batch to augment": lambda: jax.eval_shape(
        augment.random_motion(**MOTION),
        jax.random.key(0),
        jax.tree.map(lambda leaf: np.stack([leaf, leaf]), make_example()),
    ),
}


@pytest.mark.parametrize("call", MISUSES.values(), ids=MISUSES.keys())
def test_misuse(call):
    with pytest.raises(ValueError, match="expected .* got"):
        call()
