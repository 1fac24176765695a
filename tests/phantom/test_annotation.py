"""What annotators write: visible points with habit and slip, hidden ones as they expect them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.landmarks import LABELS
from fetal_jax.phantom import annotation

AT = {label: i for i, label in enumerate(LABELS)}
HABIT_MM, SLIP_MM = 0.4, 0.5
expect_hidden = jax.jit(annotation.expect_hidden)
complete_many = jax.jit(jax.vmap(annotation.complete_landmarks, in_axes=(0, None, None, None)))


@pytest.fixture(scope="module")
def shapes():
    return jax.jit(annotation.expect_shapes)(29.0)


@pytest.fixture(scope="module")
def mean(shapes):
    return shapes.mean


def show(hidden):
    return jnp.array([label not in hidden for label in LABELS])


def complete(shapes, points, hidden, n=400):
    keys = jax.random.split(jax.random.key(1), n)
    return np.asarray(complete_many(keys, shapes, points, show(hidden)))


def test_visible_points_are_written_down_as_they_were_read(shapes, mean):
    found = complete(shapes, mean, ["exL", "prn"])
    seen = [i for label, i in AT.items() if label not in ("exL", "prn")]
    np.testing.assert_array_equal(found[:, seen], np.broadcast_to(mean, found.shape)[:, seen])


def test_hidden_side_follows_the_other(shapes, mean):
    """Wider eyes on the right are expected on the left, less what pose and reading may be."""
    moved = mean.at[AT["exR"], 0].add(3.0).at[AT["enR"], 0].add(1.2)
    hidden = show(["exL"])
    off = expect_hidden(shapes, moved, hidden)[AT["exL"]] - mean[AT["exL"]]
    assert -3.0 < float(off[0]) < -0.5
    same = expect_hidden(shapes, mean, hidden)[AT["exL"]] - mean[AT["exL"]]
    np.testing.assert_allclose(same, 0.0, atol=1e-3)


def test_the_face_is_expected_where_its_seen_part_is(shapes, mean):
    shift = jnp.array([2.0, -3.0, 2.5])
    hidden = ["exL", "chL", "prn"]
    off = (expect_hidden(shapes, mean + shift[None], show(hidden)) - mean)[
        np.array([AT[label] for label in hidden])
    ]
    np.testing.assert_allclose(off, np.broadcast_to(shift, off.shape), atol=1.2)


def test_what_is_expected_is_the_conditional_mean(shapes, mean):
    """By the block formula C_hv (C_vv + r² I)⁻¹ (x_v - m_v), in double precision."""
    hidden = np.repeat(~np.asarray(show(["exL", "enL", "n", "chR"])), 3)
    read = np.asarray(mean, np.float64) + np.random.default_rng(0).normal(0, 1.5, (19, 3))
    c = np.asarray(shapes.covariance, np.float64)
    c_vv = c[~hidden][:, ~hidden] + annotation.READ_MM**2 * np.eye((~hidden).sum())
    off = (read - np.asarray(mean)).ravel()[~hidden]
    expected = np.asarray(mean).ravel()[hidden] + c[hidden][:, ~hidden] @ np.linalg.solve(c_vv, off)
    found = expect_hidden(shapes, jnp.asarray(read, jnp.float32), jnp.asarray(~hidden[::3]))
    np.testing.assert_allclose(np.asarray(found).ravel()[hidden], expected, atol=0.02)


def test_hidden_points_regress_to_the_mean_face(scenes, shapes):
    """The expected face varies less than the true ones, and lies nearer to them than the mean."""
    at = np.flatnonzero(scenes.age_weeks == 29.0)
    hidden = show(["exL", "enL", "alL", "acL", "cphL", "chL"])
    own = scenes.own[at, :19]
    expected = np.asarray(
        jax.jit(jax.vmap(annotation.expect_hidden, in_axes=(None, 0, None)))(shapes, own, hidden)
    )
    left = np.flatnonzero(~np.asarray(hidden))
    assert (expected[:, left].std(axis=0) < own[:, left].std(axis=0) + 0.05).mean() > 0.8
    off = np.linalg.norm(expected - own, axis=-1)[:, left].mean()
    mean_off = np.linalg.norm(np.asarray(shapes.mean) - own, axis=-1)[:, left].mean()
    assert 0.3 < off < 0.9 * mean_off
    # without a search: about where the true points lie
    assert np.linalg.norm(own.mean(axis=0) - np.asarray(shapes.mean), axis=-1).max() < 0.7


def test_a_hidden_side_is_misjudged_together_and_more_so_the_more_is_hidden(shapes, mean):
    side = ["exL", "enL", "alL", "acL", "cphL", "chL"]

    def errors(hidden):
        off = complete(shapes, mean, hidden) - np.asarray(mean)
        return off[:, AT["exL"], 0], off[:, AT["chL"], 0]

    ex, ch = errors(side)
    assert np.corrcoef(ex, ch)[0, 1] > 0.6  # 1.8² / (1.8² + 1.0²) = 0.76
    fewer, other = errors(["exL"])
    assert fewer.std() < 0.8 * ex.std() and np.abs(other).max() == 0.0


def test_annotators_differ_by_habit_and_by_case(shapes, mean):
    visible = jnp.ones(19, bool)

    @jax.jit
    def read(habit_keys, keys):
        def one(habit_key, key):
            return annotation.sample_reading(
                habit_key, key, shapes, mean, visible, habit_mm=HABIT_MM, slip_mm=SLIP_MM
            )

        return jax.vmap(jax.vmap(one, in_axes=(0, 0)), in_axes=(None, 0))(habit_keys, keys)

    keys = jax.random.split(jax.random.key(2), (300, 3))
    found = np.asarray(read(jax.random.split(jax.random.key(7), 3), keys))  # [300, 3, 19, 3]
    off = found - np.asarray(mean)
    # the two directions across and the one along: (2 x 0.8² + 1.4²) / 3 = 1.08 of the variance
    habits = off.mean(axis=0)
    assert habits.std() == pytest.approx(HABIT_MM * 1.08**0.5, rel=0.25)
    assert (off - habits).std() == pytest.approx(SLIP_MM * 1.08**0.5, rel=0.05)
    # up and down the profile at n, sideways at the corner of the mouth
    slips = (off - habits).std(axis=(0, 1))
    assert slips[AT["n"], 1] > 1.5 * slips[AT["n"], 0]
    assert slips[AT["chL"], 0] > 1.5 * slips[AT["chL"], 1]
    apart = np.linalg.norm(found[:, 0] - found[:, 1], axis=-1).mean()
    assert 1.0 < apart < 2.0  # mm between two readers, as studies of 3D ultrasound report
    assert 0.8 < np.linalg.norm(off, axis=-1).mean() < 1.5
