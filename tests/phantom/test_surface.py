"""Landmarks against a mesh that is extracted from the anatomy on a grid, not from its formulas."""

import jax
import numpy as np
import pytest
import pyvista

from fetal_jax.phantom import anatomy, cohort

SCENES = 6  # of six children of 20 to 38 weeks


@jax.jit
def distance_in_world(scene, r, a, s):
    x, z, y = cohort.invert_pose(scene.pose, r, a, s)
    return anatomy.skin_distance(scene.face, x, y, z)


@jax.jit
def distance_in_own(scene, x, y, z):
    return anatomy.skin_distance(scene.face, x, y, z)


def extract(distance, scene, centre, half_mm, shape):
    """Surface mesh of `distance` = 0 in a box of `shape` nodes, `half_mm` [3] to each side."""
    low, half_mm = np.asarray(centre) - half_mm, np.broadcast_to(half_mm, 3)
    spacing = 2 * half_mm / (np.array(shape) - 1)
    ticks = [low[i] + spacing[i] * np.arange(shape[i]) for i in range(3)]
    mesh = np.meshgrid(*(t.astype(np.float32) for t in ticks), indexing="ij")
    grid = pyvista.ImageData(dimensions=shape, spacing=tuple(spacing), origin=tuple(low))
    grid["skin"] = np.asarray(distance(scene, *mesh)).ravel(order="F")
    return grid.contour([0.0], scalars="skin")


def test_true_positions_lie_on_the_mesh(select_scene):
    away = []
    for scene in map(select_scene, range(SCENES)):
        for point in np.asarray(scene.truth, np.float64):
            mesh = extract(distance_in_world, scene, point, 2.1, (15, 15, 15))
            _, nearest = mesh.find_closest_cell(point, return_closest_point=True)
            away.append(np.linalg.norm(nearest - point))
    assert np.quantile(away, 0.95) < 0.1 and np.max(away) < 0.3


@pytest.mark.parametrize("label", ["prn", "pg", "alL", "alR"])
def test_extreme_points_are_those_of_the_mesh(select_scene, label):
    """The most forward vertex of nose and chin, the most lateral of the wing."""
    toward = np.array({"alL": [-1, 0, 0], "alR": [1, 0, 0]}.get(label, [0, 0, 1]))
    reach_mm = np.array([1.5, 1.2, 1.0] if label[:2] == "al" else [4.0, 2.2, 2.0])
    for scene in map(select_scene, range(SCENES)):
        point = np.asarray(scene.own, np.float64)[anatomy.POINTS.index(label)]
        half_mm = float(scene.face.scale[1]) * reach_mm
        mesh = extract(distance_in_own, scene, point, half_mm, (81, 45, 41))
        height = mesh.points @ toward
        top = mesh.points[np.argmax(height)]
        assert height.max() == pytest.approx(point @ toward, abs=0.01)
        assert np.linalg.norm(top - point) < 0.3, (label, top, point)
