"""What annotators write: true where visible, a mirror image or a guess where not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.landmarks import LABELS
from fetal_jax.phantom import annotation

AT = {label: i for i, label in enumerate(LABELS)}
complete_many = jax.jit(jax.vmap(annotation.complete_landmarks, in_axes=(0, None, None)))


@pytest.fixture(scope="module")
def points(template_points):
    return template_points[:19]


def complete(points, hidden, n=400):
    visible = jnp.array([label not in hidden for label in LABELS])
    return np.asarray(complete_many(jax.random.split(jax.random.key(1), n), points, visible))


def test_visible_points_are_true(points):
    found = complete(points, ["exL", "prn"])
    seen = [i for label, i in AT.items() if label not in ("exL", "prn")]
    np.testing.assert_array_equal(found[:, seen], np.broadcast_to(points, found.shape)[:, seen])


def test_hidden_side_is_the_mirror_image_of_the_other(points):
    found = complete(points, ["exL"])[:, AT["exL"]]
    mirrored = np.asarray(points)[AT["exR"]] * [-1, 1, 1]
    np.testing.assert_allclose(found.mean(axis=0), mirrored, atol=0.25)
    off = np.linalg.norm(found - mirrored, axis=1)
    assert 1.0 < off.mean() < 4.0  # a few millimetres


def test_mirroring_moves_with_the_side_that_is_seen(points):
    moved = points.at[AT["exR"], 1].add(10.0)
    lifted = complete(moved, ["exL"])[:, AT["exL"], 1].mean()
    assert lifted == pytest.approx(float(points[AT["exR"], 1]) + 10.0, abs=0.5)


@pytest.mark.parametrize("hidden", [["prn"], ["exL", "exR"]])
def test_without_another_side_the_point_is_placed_by_eye(points, hidden):
    found = complete(points, hidden)[:, AT[hidden[0]]]
    off = found - np.asarray(points)[AT[hidden[0]]]
    np.testing.assert_allclose(off.std(axis=0), annotation.PLACED_MM, rtol=0.15)


def test_annotators_differ_by_habit_and_by_case(points):
    visible = jnp.ones(19, bool)
    read = jax.jit(
        jax.vmap(
            lambda k: annotation.sample_readings(
                jax.random.key(7), k, points, visible, annotators=3
            )
        )
    )
    found = np.asarray(read(jax.random.split(jax.random.key(2), 300)))  # [300, 3, 19, 3]
    off = found - np.asarray(points)
    habits = off.mean(axis=0)
    assert habits.std() == pytest.approx(annotation.HABIT_MM, rel=0.25)
    assert (off - habits).std() == pytest.approx(annotation.READING_MM, rel=0.05)
    apart = np.linalg.norm(found[:, 0] - found[:, 1], axis=-1).mean()
    assert 0.8 < apart < 2.0  # mm between two readers, as studies of 3D ultrasound report
