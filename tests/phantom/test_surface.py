"""Landmarks against a mesh that is extracted from the anatomy on a grid, not from its formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pyvista

from fetal_jax.phantom import anatomy, cohort

draw_scene = jax.jit(cohort.draw_scene)


@jax.jit
def measure_in_world(scene, r, a, s):
    x, z, y = cohort.invert_pose(scene.pose, r, a, s)
    return anatomy.measure_skin(scene.face, x, y, z)


def extract(measure, low, high, step_mm):
    """Surface mesh of `measure` = 0 in a box, at a spacing."""
    shape = tuple(int(n) for n in np.ceil((np.array(high) - low) / step_mm) + 1)
    ticks = [low[i] + step_mm * np.arange(shape[i], dtype=np.float32) for i in range(3)]
    value = measure(*(jnp.asarray(g) for g in np.meshgrid(*ticks, indexing="ij")))
    grid = pyvista.ImageData(dimensions=shape, spacing=(step_mm,) * 3, origin=tuple(low))
    grid["skin"] = np.asarray(value).ravel(order="F")
    return grid.contour([0.0], scalars="skin")


@pytest.fixture(scope="module")
def scenes():
    keys = jax.random.split(jax.random.key(21), 6)
    return [
        draw_scene(key, jax.random.fold_in(key, 1), age, 0)
        for key, age in zip(keys, (20.0, 24.0, 28.0, 29.0, 32.0, 36.0), strict=True)
    ]


def test_true_positions_lie_on_the_mesh(scenes):
    away = []
    for scene in scenes:
        truth = np.asarray(scene.truth, np.float64)
        mesh = extract(
            lambda *at, scene=scene: measure_in_world(scene, *at),
            truth.min(axis=0) - 4.0,
            truth.max(axis=0) + 4.0,
            0.3,
        )
        _, nearest = mesh.find_closest_cell(truth, return_closest_point=True)
        away.append(np.linalg.norm(nearest - truth, axis=1))
    assert np.quantile(away, 0.95) < 0.1 and np.max(away) < 0.3


@pytest.mark.parametrize("label", ["prn", "pg", "alL", "alR"])
def test_extreme_points_are_those_of_the_mesh(scenes, label):
    """The most forward vertex of nose and chin, the most lateral of the wing."""
    toward = {"alL": [-1, 0, 0], "alR": [1, 0, 0]}.get(label, [0, 0, 1])
    for scene in scenes:
        own = np.asarray(scene.own, np.float64)
        point = own[anatomy.POINTS.index(label)]
        size = float(scene.face.scale[1])
        reach = size * np.array([1.5, 1.2, 1.0] if label[:2] == "al" else [4.0, 2.2, 2.0])
        mesh = extract(
            lambda *at, scene=scene: anatomy.measure_skin(scene.face, *at),
            point - reach,
            point + reach,
            0.1,
        )
        height = mesh.points @ np.array(toward)
        top = mesh.points[np.argmax(height)]
        assert height.max() == pytest.approx(point @ np.array(toward), abs=0.01)
        assert np.linalg.norm(top - point) < 0.3, (label, top, point)
