"""Frames against arithmetic: similarities that are known, points that are wrong, mean shapes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from fetal_jax import frames
from fetal_jax.frames import Similarity

fit_similarity = jax.jit(frames.fit_similarity)
fit_frame = jax.jit(frames.fit_frame, static_argnames="tolerance_mm")
MIRROR_INDEX = np.array([0, 2, 1, 4, 3, 5, 6, 7, 9, 8])
SHAPE = np.array(
    [[0, 0, 0], [30, -5, 2], [-30, -5, 2], [12, 8, -20], [-12, 8, -20]]
    + [[0, 14, -15], [0, 9, -35], [0, 4, -42], [21, -10, 10], [-21, -10, 10]],
    float,
)
SHAPE -= SHAPE.mean(axis=0)


def move(points, seed, *, size=1.0, degrees=180.0, shift_mm=50.0):
    """Points under a similarity, in numpy; and the similarity."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    turn = Rotation.from_rotvec(np.deg2rad(degrees) * rng.random() * axis / np.linalg.norm(axis))
    shift = rng.uniform(-shift_mm, shift_mm, 3)
    return size * points @ turn.as_matrix().T + shift, (size, turn.as_matrix(), shift)


def numpy_fit(source, target, weights):
    """Umeyama's closed form by a singular value decomposition."""
    w = weights / weights.sum()
    centre, onto = w @ source, w @ target
    a, b = source - centre, target - onto
    u, d, vt = np.linalg.svd(np.einsum("l,li,lj->ij", w, b, a))
    sign = np.array([1, 1, np.linalg.det(u @ vt)])
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / np.einsum("l,li,li->", w, a, a)
    return scale, rotation, onto - scale * rotation @ centre


def as_float32(*arrays):
    return [np.asarray(a, np.float32) for a in arrays]


@pytest.mark.parametrize("seed", range(6))
def test_least_squares_against_a_decomposition(seed):
    """Noise, weights, and points that weigh nothing and are nowhere."""
    rng = np.random.default_rng(seed)
    target, _ = move(SHAPE, seed, size=0.7 + 0.2 * seed)
    target = target + rng.normal(0, 3, SHAPE.shape)
    weights = rng.random(len(SHAPE))
    weights[seed] = 0
    expected = numpy_fit(SHAPE, target, weights)
    target[seed] = np.nan
    found = fit_similarity(*as_float32(SHAPE, target, weights))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("degrees", [0.0, 1e-3, 90.0, 179.9, 180.0])
@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 0, 1], [1, -2, 3]])
def test_a_turn_is_found(degrees, axis):
    axis = np.array(axis) / np.linalg.norm(axis)
    rotation = Rotation.from_rotvec(np.deg2rad(degrees) * axis).as_matrix()
    given = as_float32(SHAPE, SHAPE @ rotation.T, np.ones(len(SHAPE)))
    np.testing.assert_allclose(fit_similarity(*given).rotation, rotation, atol=2e-4)


def test_a_mirror_image_is_not_matched_by_a_reflection():
    found = fit_similarity(*as_float32(SHAPE, SHAPE * [-1, 1, 1], np.ones(len(SHAPE))))
    assert np.linalg.det(found.rotation) == pytest.approx(1.0, abs=1e-5)
    # it is once the landmarks change sides: this shape is symmetric
    swapped = (SHAPE * [-1, 1, 1])[MIRROR_INDEX]
    found = fit_similarity(*as_float32(SHAPE, swapped, np.ones(len(SHAPE))))
    np.testing.assert_allclose(found.rotation, np.eye(3), atol=1e-5)


def test_carried_there_and_back():
    _, (scale, rotation, shift) = move(SHAPE, 3, size=1.4)
    similarity = Similarity(*as_float32(scale, rotation, shift))
    there = frames.carry_points(similarity, jnp.asarray(SHAPE, jnp.float32))
    np.testing.assert_allclose(there, scale * SHAPE @ rotation.T + shift, rtol=1e-5, atol=1e-4)
    back = frames.carry_points(frames.invert(similarity), there)
    np.testing.assert_allclose(back, SHAPE, atol=1e-4)


@pytest.mark.parametrize("wrong", [0, 2, 4, 5])
def test_up_to_half_of_the_points_may_be_anywhere(wrong):
    """The frame is that of the others, and it says how many they are."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        target, (scale, rotation, shift) = move(SHAPE, seed, size=0.8)
        chosen = rng.permutation(len(SHAPE))[:wrong]
        target[chosen] = shift + rng.normal(0, 40, (wrong, 3))
        found = fit_frame(*as_float32(SHAPE, target, np.ones(len(SHAPE))), tolerance_mm=4.0)
        places = frames.carry_points(found.similarity, jnp.asarray(SHAPE, jnp.float32))
        np.testing.assert_allclose(places, scale * SHAPE @ rotation.T + shift, atol=0.6)
        assert found.agreeing == pytest.approx(1 - wrong / len(SHAPE), abs=0.101)
        assert found.residual_mm < 0.5


def test_points_are_like_a_face_by_how_sure_and_how_near_they_are():
    target, (scale, *_) = move(SHAPE, 3, size=0.8)
    weights = np.linspace(0.1, 1, len(SHAPE))
    given = as_float32(SHAPE, target, weights)
    assert fit_frame(*given, tolerance_mm=4.0).likeness == pytest.approx(weights.mean(), rel=1e-4)
    target[0] += [30 * scale, 0, 40 * scale]  # 50 mm of the frame
    there = as_float32(SHAPE, target, weights)
    expected = (weights.sum() - weights[0] * (1 - 1 / (1 + (50 / 4.0) ** 2))) / len(SHAPE)
    found = fit_frame(*there, tolerance_mm=4.0)
    assert found.likeness == pytest.approx(expected, rel=1e-2)
    with_nothing = fit_frame(*there[:2], there[2] * 0, tolerance_mm=4.0)
    assert with_nothing.likeness == 0.0


def test_least_squares_alone_would_be_led_astray():
    target, (scale, rotation, shift) = move(SHAPE, 1)
    target[:4] += 60.0
    given = as_float32(SHAPE, target, np.ones(len(SHAPE)))
    true = scale * SHAPE @ rotation.T + shift
    off = [
        np.abs(np.asarray(frames.carry_points(similarity, given[0])) - true).max()
        for similarity in (fit_similarity(*given), fit_frame(*given, tolerance_mm=4.0).similarity)
    ]
    assert off[0] > 20.0 and off[1] < 0.6


def test_what_is_not_trusted_has_no_say():
    target, (_, rotation, _) = move(SHAPE, 2)
    target[3:] = np.random.default_rng(0).normal(0, 40, (7, 3))
    weights = np.where(np.arange(10) < 3, 0.9, 1e-4)
    weights[9], target[9] = 0.0, np.nan
    found = fit_frame(*as_float32(SHAPE, target, weights), tolerance_mm=4.0)
    assert found.agreeing > 0.99
    np.testing.assert_allclose(found.similarity.rotation, rotation, atol=0.05)


def test_three_points_have_a_fit_and_a_residual():
    target, (scale, rotation, shift) = move(SHAPE, 4, size=1.2)
    weights = np.zeros(10)
    weights[[0, 1, 3]] = 1
    target[5:] = np.nan
    found = fit_frame(*as_float32(SHAPE, target, weights), tolerance_mm=4.0)
    np.testing.assert_allclose(found.similarity.rotation, rotation, atol=1e-4)
    assert found.agreeing == 1.0 and found.residual_mm < 1e-3
    nothing = fit_frame(*as_float32(SHAPE, target, np.zeros(10)), tolerance_mm=4.0)
    assert nothing.agreeing == 0.0 and np.isfinite(nothing.similarity.shift).all()


def test_a_scan_has_one_frame_whoever_is_beside_it():
    target, _ = move(SHAPE, 5)
    target[:3] += 30
    other, _ = move(SHAPE, 6)
    one = as_float32(SHAPE, target, np.ones(10))
    fit = partial(frames.fit_frame, one[0], weights=one[2], tolerance_mm=4.0)
    both = jax.lax.map(fit, np.stack(as_float32(other, target)))
    alone = fit_frame(*one, tolerance_mm=4.0)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(both), strict=True):
        np.testing.assert_allclose(a, b[1], rtol=1e-4, atol=1e-3)


def make_cases(n, *, degrees=180.0, noise_mm=0.0, asymmetry_mm=0.0):
    rng = np.random.default_rng(0)
    skew = asymmetry_mm * rng.normal(size=SHAPE.shape)
    sizes = np.exp(rng.normal(0, 0.2, n))
    sizes /= np.exp(np.log(sizes).mean())
    cases = [
        move(SHAPE + skew + rng.normal(0, noise_mm, SHAPE.shape), i, size=s, degrees=degrees)[0]
        for i, s in enumerate(sizes)
    ]
    return np.stack(cases)


def distances(points):
    return np.linalg.norm(points[..., :, None, :] - points[..., None, :, :], axis=-1)


def test_mean_of_one_shape_in_any_pose_and_size_is_that_shape():
    mean, cases = frames.fit_mean_shape(make_cases(12))
    np.testing.assert_allclose(distances(mean), distances(SHAPE), atol=2e-3)
    np.testing.assert_allclose(cases, np.broadcast_to(mean, cases.shape), atol=2e-3)


def test_absent_points_are_left_out():
    points = np.concatenate([make_cases(12), 2 * SHAPE[None]])
    rng = np.random.default_rng(1)
    points[rng.random(points.shape[:2]) < 0.3] = np.nan
    points[12, :2], points[12, 2:] = 2 * SHAPE[:2], np.nan  # two points have no pose and no size
    assert not np.isfinite(points).all(axis=(1, 2)).any()  # nobody has all
    mean, cases = frames.fit_mean_shape(points)
    np.testing.assert_allclose(distances(mean), distances(SHAPE), atol=5e-3)
    absent = ~np.isfinite(points).all(axis=-1)
    absent[12] = True
    np.testing.assert_array_equal(np.isnan(cases).any(axis=-1), absent)


def test_axes_are_principal_ones_and_nearest_to_those_of_the_cases():
    mean, _ = frames.fit_mean_shape(make_cases(40, degrees=25.0))
    covariance = mean.T @ mean
    assert np.abs(covariance - np.diag(np.diagonal(covariance))).max() < 1e-6 * covariance.max()
    rotation = numpy_fit(SHAPE, mean, np.ones(10))[1]
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert (np.abs(rotation).argmax(axis=1) == np.arange(3)).all()
    assert (np.diagonal(rotation) > 0.7).all()


def test_mirror_pairs_make_a_symmetric_shape():
    points = make_cases(12, degrees=25.0, asymmetry_mm=1.5)
    mean, _ = frames.fit_mean_shape(points, MIRROR_INDEX)
    np.testing.assert_allclose(mean[MIRROR_INDEX] * [-1, 1, 1], mean, atol=1e-9)
    np.testing.assert_allclose(distances(mean), distances(SHAPE), atol=4.0)
    lopsided, _ = frames.fit_mean_shape(points)
    assert (
        np.abs(distances(lopsided)[MIRROR_INDEX][:, MIRROR_INDEX] - distances(lopsided)).max() > 1
    )


@pytest.mark.parametrize(
    ("points", "said"),
    [
        pytest.param(SHAPE[:2], "three landmarks or more for a frame, got 2", id="two"),
        pytest.param(np.outer(np.arange(4), [1, 2, 3]), "not on a line .* 0.00", id="a line"),
        pytest.param(
            np.vstack([SHAPE[:3], [[np.nan] * 3]]), "got none with landmark 4", id="nowhere"
        ),
    ],
)
def test_what_makes_no_frame_is_refused(points, said):
    with pytest.raises(ValueError, match=said):
        frames.fit_mean_shape(np.stack([points, points + 1.0]))
