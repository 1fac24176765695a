"""Limbs and the womb: what lies in front of a face, and how far from it."""

import jax
import numpy as np
import pytest

from fetal_jax.phantom import anatomy, surroundings

sample_limb = jax.jit(surroundings.sample_limb)
limb_distances = jax.jit(surroundings.limb_distances)
sample_womb = jax.jit(surroundings.sample_womb)
near_wall_distance = jax.jit(surroundings.near_wall_distance)
ahead_of_far_wall = jax.jit(surroundings._ahead_of_far_wall)
to_ras = jax.jit(anatomy.to_ras)
far_wall_distance = jax.jit(surroundings.far_wall_distance)


@pytest.fixture(scope="module")
def points(template_points):
    return np.asarray(template_points)


def make_limb(points, kind, seed=0, size=1.0):
    limb = sample_limb(jax.random.key(seed), points, np.float32(size), np.int32(kind))
    return jax.device_get(limb)


def surface_at(limb, point):
    return [float(d) for d in limb_distances(limb, *np.float32(point))]


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_a_limb_lies_near_the_face_and_in_front_of_it(points, kind):
    for seed in range(20):
        limb = make_limb(points, kind, seed)
        nearest = np.asarray(limb_distances(limb, *points.T)[0]).min()
        assert -8.0 < nearest < 16.0
        assert float(limb.ends[..., 2].mean()) > float(points[:, 2].min())


def test_nothing_is_far_from_everything(points):
    surface, core = limb_distances(make_limb(points, 0), *points.T)
    assert float(surface.min()) > 50.0 and float(core.min()) > 50.0


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_core_runs_inside_the_limb(points, kind):
    limb = make_limb(points, kind)
    for start, end in np.asarray(limb.ends):
        surface, core = surface_at(limb, 0.5 * (start + end))
        assert surface < core < 0.0


def test_distance_to_a_rod_is_exact(points):
    limb = make_limb(points, 2)
    start, end = np.asarray(limb.ends[0])
    along = (end - start) / np.linalg.norm(end - start)
    aside = np.cross(along, [0.0, 0.0, 1.0])
    aside = aside / np.linalg.norm(aside)
    surface, _ = surface_at(limb, 0.5 * (start + end) + 20.0 * aside)
    assert surface == pytest.approx(20.0 - 7.0, abs=1e-3)


def test_a_hand_grows_with_the_child(points):
    small, large = (np.asarray(make_limb(points, 1, size=size).radii) for size in (0.7, 1.2))
    np.testing.assert_allclose(large / small, 1.2 / 0.7, rtol=1e-5)


AHEAD_MM = 97.0


def make_womb(points, seed):
    """A womb round the template's face in the world's middle, AHEAD_MM before the apex."""
    at = np.asarray(to_ras(points - points.mean(axis=0)))
    reach = np.linalg.norm(at - np.float32([0.0, AHEAD_MM, 0.0]), axis=1)
    womb = sample_womb(jax.random.key(seed), np.float32(AHEAD_MM), reach, at)
    return at, reach, jax.device_get(womb)


def test_near_wall_ends_before_the_face(points):
    theta = np.linspace(-0.5, 0.5, 30, dtype=np.float32)
    reached = 0
    for seed in range(40):
        _, reach, womb = make_womb(points, seed)
        at_face = near_wall_distance(womb, np.full(30, reach.min()), theta, 0.1 * theta)
        assert float(at_face.min()) > -12.0  # placenta and waves may touch, and no more
        reached += float(at_face.min()) > 0.0
        assert float(near_wall_distance(womb, np.zeros(30, np.float32), theta, theta).max()) < 0
    assert reached >= 30


def test_far_wall_lies_behind_the_face(points):
    depths = []
    for seed in range(40):
        at, _, womb = make_womb(points, seed)
        assert float(far_wall_distance(womb, *at.T).min()) > 0.5 * surroundings.CLEARANCE_MM
        r, a, s = np.float32([[0.0, 0.0, 0.0], [0.0, -130.0, 0.0]]).T
        inside = far_wall_distance(womb, r, a, s)
        assert float(inside[0]) > 0.0 > float(inside[1])
        depths.append(float(womb.depth))
    assert np.std(depths) > 6.0


def test_far_wall_makes_room(points):
    """A face that lies far back pushes the wall behind it, by no more than it must."""
    at, reach, womb = make_womb(points, 0)
    back = at - np.float32([0.0, 60.0, 0.0])
    moved = sample_womb(jax.random.key(0), np.float32(AHEAD_MM), reach + 60.0, back)
    assert float(moved.depth) > float(womb.depth) + 5.0
    assert float(ahead_of_far_wall(moved, *back.T).min()) == pytest.approx(
        surroundings.CLEARANCE_MM, abs=1e-3
    )
    np.testing.assert_array_equal(moved.folds, womb.folds)
