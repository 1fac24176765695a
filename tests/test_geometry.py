"""Affines and grids against explicit arithmetic."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from fetal_jax import geometry

SHAPE = (5, 6, 7)


def rotation(axis, degrees):
    """Right-handed about a coordinate axis: [3, 3]."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(3)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def build_affine(matrix, origin=(0.0, 0.0, 0.0)):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, origin
    return affine


def oblique_affine():
    matrix = rotation(2, 20) @ rotation(0, -35) @ np.diag([0.5, 0.7, 1.1])
    return build_affine(matrix, (-12.0, 30.5, 7.25))


def test_apply_affine_is_a_sum_of_columns():
    affine = oblique_affine()
    points = np.random.default_rng(0).normal(size=(2, 4, 3))
    expected = [
        [sum(affine[:3, a] * p[a] for a in range(3)) + affine[:3, 3] for p in row] for row in points
    ]
    found = geometry.apply_affine(affine, points)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(geometry.apply_affine(affine, [0, 0, 0]), affine[:3, 3])


@pytest.mark.parametrize(
    ("affine", "expected"),
    [
        pytest.param(np.eye(4), [1, 1, 1], id="identity"),
        pytest.param(oblique_affine(), [0.5, 0.7, 1.1], id="oblique"),
        pytest.param(build_affine(np.diag([-2.0, 0.5, -1.0])), [2, 0.5, 1], id="flipped"),
        # columns and not rows: array axis 0 runs along S in steps of 3
        pytest.param(
            build_affine([[0, 1, 0], [0, 0, 2], [3.0, 0, 0]]), [3, 1, 2], id="permuted axes"
        ),
    ],
)
def test_voxel_sizes(affine, expected):
    np.testing.assert_allclose(geometry.voxel_sizes(affine), expected, rtol=1e-12)


TURNED = np.sqrt(0.5)
BOUNDS = {
    "identity": (np.eye(4), (-0.5, -0.5, -0.5), (4.5, 5.5, 6.5)),
    "spacing and origin": (
        build_affine(np.diag([2.0, 1.0, 0.5]), (10.0, 20.0, 30.0)),
        (9.0, 19.5, 29.75),
        (19.0, 25.5, 33.25),
    ),
    "flipped": (
        build_affine(np.diag([-1.0, -1.0, 1.0]), (4.0, 5.0, 0.0)),
        (-0.5, -0.5, -0.5),
        (4.5, 5.5, 6.5),
    ),
    # 45 degrees about S: R = (i - j) / sqrt 2, A = (i + j) / sqrt 2
    "oblique": (
        build_affine(rotation(2, 45)),
        ((-0.5 - 5.5) * TURNED, -1.0 * TURNED, -0.5),
        ((4.5 + 0.5) * TURNED, 10.0 * TURNED, 6.5),
    ),
}


@pytest.mark.parametrize("case", BOUNDS.values(), ids=BOUNDS.keys())
def test_world_bounds(case):
    affine, low, high = case
    found_low, found_high = geometry.world_bounds(SHAPE, affine)
    np.testing.assert_allclose(found_low, low, atol=1e-12)
    np.testing.assert_allclose(found_high, high, atol=1e-12)


GRIDS = {
    "along the world": geometry.align_grid((12, 16, 20), 0.8, np.array([-6.0, 3.5, 100.25])),
    # turned about two axes, its first axis reflected
    "turned": geometry.Grid(
        (12, 16, 20),
        build_affine(
            rotation(2, 20) @ rotation(0, -35) @ np.diag([-0.8, 0.8, 0.8]), (-12, 30.5, 7)
        ),
    ),
}


@pytest.fixture(params=GRIDS.values(), ids=GRIDS.keys())
def grid(request):
    return request.param


def test_a_grid_along_the_world():
    grid = GRIDS["along the world"]
    assert grid.shape == (12, 16, 20) and grid.spacing_mm == pytest.approx(0.8)
    expected = [[0.8, 0, 0, -6.0], [0, 0.8, 0, 3.5], [0, 0, 0.8, 100.25], [0, 0, 0, 1]]
    np.testing.assert_array_equal(grid.affine, expected)
    np.testing.assert_allclose(grid.to_world([2, 0, 5]), [-4.4, 3.5, 104.25], rtol=1e-12)
    np.testing.assert_allclose(grid.to_voxels([-4.4, 3.5, 104.25]), [2, 0, 5], atol=1e-12)


def test_grid_round_trip(grid):
    points = np.random.default_rng(0).uniform(-200, 200, (5, 19, 3))
    np.testing.assert_allclose(grid.to_world(grid.to_voxels(points)), points, rtol=0, atol=1e-9)
    np.testing.assert_allclose(grid.to_voxels(grid.to_world(points)), points, rtol=0, atol=1e-9)
    assert grid.to_voxels(points).dtype == grid.to_world(points).dtype == np.float64


def test_a_turned_grid_by_hand():
    """A quarter turn about S: its first axis runs to Anterior, its second to the Left."""
    grid = geometry.Grid((4, 4, 4), build_affine(2.0 * rotation(2, 90), (10.0, 0.0, 0.0)))
    np.testing.assert_allclose(grid.to_world([3, 0, 0]), [10, 6, 0], atol=1e-12)
    np.testing.assert_allclose(grid.to_world([0, 3, 1]), [4, 0, 2], atol=1e-12)
    np.testing.assert_allclose(grid.to_voxels([[4, 0, 2]]), [[0, 3, 1]], atol=1e-12)


@pytest.mark.parametrize(
    "matrix",
    [np.diag([1.0, 1.0, 1.1]), rotation(1, 30) @ np.diag([0.5, 0.6, 0.5])],
    ids=["along the world", "turned"],
)
def test_voxels_that_are_no_cubes_have_no_spacing(matrix):
    grid = geometry.Grid((4, 4, 4), build_affine(matrix))
    with pytest.raises(ValueError, match=r"expected a grid of cubes, got voxels of \[.*\] mm"):
        grid.spacing_mm  # noqa: B018
    with pytest.raises(ValueError, match="cubes"):
        grid.contains(np.zeros(3), margin_mm=1.0)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(
    ("beyond", "margin_mm", "inside"),
    [
        pytest.param(0.0, 0.0, True, id="a centre"),
        pytest.param(0.49, 0.0, True, id="within the voxel"),
        pytest.param(0.51, 0.0, False, id="outside"),
        pytest.param(0.51 + 1.0, 0.8, False, id="a voxel and more outside"),
        pytest.param(0.49 + 1.0, 0.8, True, id="within a margin of a voxel"),
    ],
)
def test_grid_contains_its_voxels_to_their_edge(grid, axis, beyond, margin_mm, inside):
    voxels = np.full((3, 3), 7.0)
    voxels[0, axis], voxels[1, axis] = -beyond, grid.shape[axis] - 1 + beyond
    found = grid.contains(grid.to_world(voxels), margin_mm=margin_mm)
    assert found.tolist() == [inside, inside, True]


@pytest.mark.parametrize("affine", [np.eye(4), oblique_affine()], ids=["identity", "oblique"])
def test_centre_grid_does_not_depend_on_how_the_volume_is_stored(affine):
    expected = geometry.apply_affine(affine, [2.0, 2.5, 3.0])  # the middle of 5 x 6 x 7 voxels
    seen = 0
    for order in itertools.permutations(range(3)):
        for flips in itertools.product([False, True], repeat=3):
            # array index stored -> array index of the original
            back = np.zeros((4, 4))
            back[3, 3] = 1
            for stored, axis in enumerate(order):
                back[axis, stored] = -1 if flips[stored] else 1
                back[axis, 3] = SHAPE[axis] - 1 if flips[stored] else 0
            shape = tuple(SHAPE[axis] for axis in order)
            found = geometry.centre_grid(shape, affine @ back, side=10, spacing_mm=0.6)
            assert found.shape == (10, 10, 10) and found.spacing_mm == 0.6
            np.testing.assert_allclose(found.to_world([4.5] * 3), expected, rtol=0, atol=1e-9)
            seen += 1
    assert seen == 48


def test_centre_grid_by_hand():
    grid = geometry.centre_grid((4, 4, 5), np.eye(4), side=3, spacing_mm=2.0)
    np.testing.assert_allclose(grid.to_world([0, 0, 0]), [1.5 - 2, 1.5 - 2, 2 - 2])


def test_a_padded_grid_keeps_its_voxels_in_place():
    rotation = np.array([[0.0, -1, 0], [0.6, 0, -0.8], [0.8, 0, 0.6]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = 1.5 * rotation, [10.0, -20.0, 30.0]
    grid = geometry.Grid((4, 6, 8), affine)
    wide = geometry.pad_grid(grid, 3)
    assert wide.shape == (10, 12, 14) and wide.spacing_mm == pytest.approx(1.5)
    points = np.array([[0.0, 0, 0], [3.0, 5.0, 7.0]])
    np.testing.assert_allclose(wide.to_world(points + 3), grid.to_world(points), atol=1e-12)


MISUSES = {
    "points in two dimensions": (
        lambda: geometry.apply_affine(np.eye(4), np.zeros((5, 2))),
        r"points \[..., 3\], got \(4, 4\) and \(5, 2\)",
    ),
    "affine of three rows": (
        lambda: geometry.apply_affine(np.eye(4)[:3], np.zeros((5, 3))),
        r"affine \[4, 4\].*got \(3, 4\)",
    ),
    "bounds with a rotation only": (
        lambda: geometry.world_bounds(SHAPE, np.eye(3)),
        r"affine \[4, 4\].*got \(3, 3\)",
    ),
    "grid about a volume of two axes": (
        lambda: geometry.centre_grid((4, 4), np.eye(4), side=3, spacing_mm=1.0),
        r"got \(4, 4\) and \(2,\)",
    ),
}


@pytest.mark.parametrize("case", MISUSES.values(), ids=MISUSES.keys())
def test_misuse(case):
    call, message = case
    with pytest.raises(ValueError, match=message):
        call()


def test_a_cube_turned_by_quarters_lies_on_the_turned_grid():
    """In all 24 ways: each voxel has the value of the place in the world where it then lies."""
    cube = np.random.default_rng(0).random((5, 5, 5))
    grid = geometry.align_grid(cube.shape, 2.0, np.array([-3.0, 7.0, 1.0]))
    turns = Rotation.create_group("O").as_matrix()
    assert len(turns) == 24
    for turn in turns:
        turned, there = geometry.turn_cube(cube, turn), geometry.turn_grid(grid, turn)
        places = np.stack(np.indices(cube.shape), axis=-1).reshape(-1, 3)
        source = grid.to_voxels(there.to_world(places))
        np.testing.assert_allclose(source, source.round(), atol=1e-9)
        source = source.round().astype(int)
        np.testing.assert_array_equal(turned.reshape(-1), cube[tuple(source.T)])
