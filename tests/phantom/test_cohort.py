"""Cases: one key makes one case, poses keep the face in the volume, ages follow the study."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.phantom import anatomy, cohort

SIDE, SPACING_MM = 24, 4.0
simulate = jax.jit(jax.vmap(partial(cohort.simulate_case, side=SIDE, spacing_mm=SPACING_MM)))


def simulate_pair(*seeds):
    return simulate(jnp.stack([jax.random.key(seed) for seed in seeds]), jnp.full(2, 29.0))


@pytest.fixture(scope="module")
def pair():
    return simulate_pair(0, 1)


@pytest.fixture(scope="module")
def case(pair):
    return jax.tree.map(lambda leaf: leaf[0], pair)


@pytest.fixture(scope="module")
def scenes():
    draw = jax.jit(cohort.draw_scene)
    keys = jax.random.split(jax.random.key(7), 400)
    drawn = [draw(key, (20.0, 29.0, 36.0, 38.0)[i % 4]) for i, key in enumerate(keys)]
    drawn = [scene._replace(image_key=0) for scene in drawn]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)


def test_shapes_and_ranges(case):
    assert case.volume.shape == (SIDE,) * 3 and case.volume.dtype == jnp.float32
    assert case.landmarks.shape == (19, 3)
    assert case.visible.shape == (19,) and case.visible.dtype == bool
    assert 0.0 <= float(case.volume.min()) and float(case.volume.max()) <= 1.0


def test_one_key_one_case_whoever_is_beside_it(pair):
    other = simulate_pair(2, 1)
    for a, b in zip(pair, other, strict=True):
        np.testing.assert_array_equal(a[1], b[1])
    assert float(jnp.abs(pair.volume[0] - other.volume[0]).max()) > 0.2
    assert float(jnp.abs(pair.landmarks[0] - other.landmarks[0]).max()) > 1.0


def test_landmarks_stay_near_the_centre(scenes):
    assert float(jnp.abs(scenes.landmarks).max()) <= 44.0


def test_pose_is_what_alignment_leaves(scenes):
    middle = 0.5 * (scenes.landmarks.min(axis=1) + scenes.landmarks.max(axis=1))
    assert np.abs(middle.mean(axis=0)).max() < 1.0
    assert np.asarray(scenes.pose.shift).std(axis=0) == pytest.approx(4.0, abs=0.6)
    # The trace of a product of three turns of 6 degrees: an angle of 6 sqrt(3) degrees rms.
    trace = np.trace(np.asarray(scenes.pose.rotation), axis1=1, axis2=2)
    turn = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    assert np.sqrt((turn**2).mean()) == pytest.approx(6 * np.sqrt(3), rel=0.12)


def test_some_landmarks_are_hidden_and_most_are_not(scenes):
    assert 0.85 < float(scenes.visible.mean()) < 0.98


def test_rotations_are_proper_and_turn_about_the_named_axis():
    for axis in range(3):
        angles = jnp.zeros(3).at[axis].set(jnp.pi / 2)
        turn = np.asarray(cohort.rotate_about_axes(angles))
        expected = np.zeros(3)
        expected[(axis + 2) % 3] = 1.0  # a quarter turn takes the next axis to the one after
        np.testing.assert_allclose(turn @ np.eye(3)[(axis + 1) % 3], expected, atol=1e-6)
    both = np.asarray(cohort.rotate_about_axes(jnp.array([0.3, -0.5, 0.9])))
    np.testing.assert_allclose(both @ both.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(both) == pytest.approx(1.0, abs=1e-5)


def test_pose_and_back_is_the_identity():
    points = jnp.array(np.random.default_rng(1).normal(0, 20, (19, 3)), jnp.float32)
    pose = cohort.draw_pose(jax.random.key(2), points)
    back = cohort.invert_pose(pose, *cohort.apply_pose(pose, points).T)
    np.testing.assert_allclose(jnp.stack(back, axis=1), points, atol=1e-4)


def test_face_is_the_right_way_round_in_the_world(scenes):
    at = {label: scenes.landmarks[:, i] for i, label in enumerate(anatomy.LABELS)}
    assert (at["exR"][:, 0] > at["exL"][:, 0]).all()  # Right
    assert (at["prn"][:, 1] > at["exR"][:, 1]).all()  # Anterior
    assert (at["n"][:, 2] > at["pg"][:, 2]).all()  # Superior


def test_fluid_in_front_of_the_nose_and_tissue_behind(case):
    prn = np.asarray(case.landmarks)[anatomy.LABELS.index("prn")]
    index = prn / SPACING_MM + 0.5 * (SIDE - 1)
    d, h, s = np.rint(index).astype(int)
    ray = np.asarray(case.volume)[d - 1 : d + 2, :, s - 1 : s + 2].mean(axis=(0, 2))
    assert ray[h - 2 : h + 1].max() > ray[h + 2 : h + 5].max() + 0.15


def test_ages_follow_the_counts_and_do_not_depend_on_n():
    ages = np.asarray(cohort.draw_ages(jax.random.key(0), 3000))
    assert set(ages.tolist()) <= set(cohort.AGE_COUNTS)
    assert sum(cohort.AGE_COUNTS.values()) == 725
    assert (ages == 26).mean() == pytest.approx(195 / 725, abs=0.03)
    np.testing.assert_array_equal(cohort.draw_ages(jax.random.key(0), 50), ages[:50])
