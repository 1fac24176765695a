"""From a file to the grid: one place in mm is one voxel, however the file stores its axes."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy import ndimage
from volumes import (
    AFFINE,
    OBLIQUE,
    SHAPE,
    SPACING,
    draw_blobs,
    index_to_world,
    make_volume,
    reorder,
    turn,
)

from fetal_jax.data.preprocess import find_levels, prepare_volume, sample_volume
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid, align_grid, centre_grid

ORDERS = [
    pytest.param(np.array(list(zip(order, flips, strict=True))), id=f"{order}{flips}")
    for order in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]


def prepare(volume, side, spacing_mm, percentiles=(0.5, 99.5)):
    """(voxels, grid) on the grid in the middle of the volume."""
    grid = centre_grid(volume.voxels.shape, volume.affine, side=side, spacing_mm=spacing_mm)
    return prepare_volume(volume, grid, percentiles), grid


@pytest.mark.parametrize("orders", ORDERS)
def test_axis_order_does_not_show(orders):
    expected, grid = prepare(make_volume(draw_blobs(), AFFINE), 8, 2.3)
    found, same = prepare(make_volume(*reorder(draw_blobs(), AFFINE, orders)), 8, 2.3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(same.affine, grid.affine, atol=1e-6)


@pytest.mark.parametrize("orders", ORDERS)
def test_axis_order_does_not_show_in_the_border_voxels(orders):
    """The grid's outer centres fall on the file's, where a rounding error is outside."""
    affine = np.diag([0.7, 0.7, 0.7, 1.0])
    affine[:3, 3] = -3.1, 12.7, 0.3
    voxels = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
    found, _ = prepare(make_volume(*reorder(voxels, affine, orders)), 8, 0.7, (0, 100))
    expected = (voxels - voxels.min()) / (voxels.max() - voxels.min())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_oblique_volume_keeps_its_place():
    """Interpolation and smoothing keep a linear function exactly; here it is one of RAS mm."""
    slope = np.array([0.4, -0.3, 0.2])
    voxels = index_to_world(OBLIQUE, SHAPE) @ slope
    side, spacing_mm = 6, 1.7
    found, grid = prepare(make_volume(voxels, OBLIQUE), side, spacing_mm, (0, 100))
    expected = index_to_world(grid.affine, (side,) * 3) @ slope
    expected = (expected - voxels.min()) / (voxels.max() - voxels.min())
    to_file = np.linalg.inv(OBLIQUE)
    index = index_to_world(grid.affine, (side,) * 3) @ to_file[:3, :3].T + to_file[:3, 3]
    # 4 sd, where the gaussian is cut off, are under 3 voxels here; a voxel for the interpolation
    deep = ((index >= 4) & (index <= np.array(SHAPE) - 5)).all(axis=-1)
    assert deep.sum() > 30
    np.testing.assert_allclose(found[deep], expected[deep], atol=1e-6)


def move(affine, shift_mm):
    moved = affine.copy()
    moved[:3, 3] += shift_mm
    return moved


MIDDLE = index_to_world(OBLIQUE, SHAPE)[6, 7, 8]
WIDTH_MM = 5.0
GRIDS = {
    "in the middle": centre_grid(SHAPE, OBLIQUE, side=16, spacing_mm=1.0),
    "shifted": Grid((16, 16, 16), move(np.eye(4), MIDDLE - [9.0, 6.5, 7.25])),
    "turned": Grid((16, 16, 16), move(turn(np.eye(4), (-30, 75, 10)), MIDDLE - [3.0, 10.0, 6.0])),
    "finer": Grid((20, 20, 20), move(np.diag([0.6, 0.6, 0.6, 1.0]), MIDDLE - 6.0)),
    "another side each way": Grid((16, 12, 14), move(np.eye(4), MIDDLE - [8.0, 6.0, 7.0])),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_blob_of_an_oblique_volume_on_any_grid(name):
    """Whatever the grid's pose, the value at a place in mm is the formula's."""
    grid = GRIDS[name]
    squared = ((index_to_world(OBLIQUE, SHAPE) - MIDDLE) ** 2).sum(axis=-1)
    voxels = np.exp(-squared / (2 * WIDTH_MM**2))
    found = prepare_volume(make_volume(voxels, OBLIQUE), grid, (0, 100))
    assert found.shape == grid.shape
    points = MIDDLE + np.array([[0, 0, 0], [3.0, -2.0, 1.0], [-2.5, 1.5, 3.5], [1.0, 4.0, -2.0]])
    at = grid.to_voxels(points)
    inside = ((at >= 0) & (at <= np.array(grid.shape) - 1)).all(axis=-1)
    assert inside.sum() >= 3
    at_points = ndimage.map_coordinates(found, at.T, order=1)
    truth = np.exp(-((points - MIDDLE) ** 2).sum(axis=-1) / (2 * WIDTH_MM**2))
    truth = (truth - voxels.min()) / (voxels.max() - voxels.min())
    # two linear interpolations err by at most Σ h²/8 |f''|, and |f''| <= 1/σ²
    tolerance = ((SPACING**2).sum() + 3 * 1.0**2) / (8 * WIDTH_MM**2)
    assert tolerance < 0.05
    np.testing.assert_allclose(at_points[inside], truth[inside], atol=tolerance)


def test_smoothing_only_where_the_grid_is_coarser():
    voxels = np.zeros((16, 8, 8))
    voxels[8, 4, 3] = 1.0
    affine = np.diag([1.0, 2.0, 2.5, 1.0])
    grid = centre_grid(voxels.shape, affine, side=8, spacing_mm=2.0)
    found = sample_volume(voxels, affine, (0.0, 1.0), grid)
    offsets = np.arange(-30, 31)
    sigma = np.sqrt(2.0**2 - 1) / np.sqrt(8 * np.log(2))  # 2 voxels wide, of which one is there
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel = np.where(np.abs(offsets) <= round(4 * sigma), kernel, 0.0)
    kernel /= kernel.sum()
    # grid voxel i lies between the file's 2 i and 2 i + 1; along the third axis at 0.8 i + 0.7
    i = np.arange(8)
    along_d = (kernel[30 + 2 * i - 8] + kernel[30 + 2 * i + 1 - 8]) / 2
    along_h = (i == 4).astype(float)
    along_w = np.maximum(1 - np.abs(0.8 * i + 0.7 - 3), 0)
    expected = along_d[:, None, None] * along_h[None, :, None] * along_w[None, None, :]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_outside_the_volume_is_zero():
    voxels = np.full((4, 4, 4), 7.0)
    voxels[0, 0, 0] = 0.0
    found, _ = prepare(make_volume(voxels, np.eye(4)), 8, 1.0, (0, 100))
    expected = np.zeros((8, 8, 8))
    expected[2:6, 2:6, 2:6] = voxels / 7
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("spacing", [0.4, 1.0, 2.7])
@pytest.mark.parametrize("seed", range(4))
def test_a_small_grid_is_a_piece_of_a_large_one(spacing, seed):
    """In any pose, within the volume or across its border: only what it sees is looked at."""
    rng = np.random.default_rng(seed)
    voxels = rng.random((40, 31, 26)).astype(np.float32)
    volume = make_volume(voxels, OBLIQUE)
    start = OBLIQUE @ [*rng.uniform(-3, 25, 3), 1.0]
    affine = turn(np.diag([spacing] * 3 + [1.0]), rng.uniform(0, 90, 3))
    affine[:3, 3] = start[:3]
    small = sample_volume(voxels, volume.affine, (0.1, 0.9), Grid((5, 4, 6), affine))
    wide = affine.copy()
    wide[:3, 3] -= affine[:3, :3] @ np.full(3, 60.0)  # all of the volume
    large = sample_volume(voxels, volume.affine, (0.1, 0.9), Grid((130, 130, 130), wide))
    np.testing.assert_allclose(small, large[60:65, 60:64, 60:66], atol=1e-6)


def test_a_grid_beside_the_volume_is_empty():
    volume = make_volume(np.random.default_rng(0).random((4, 4, 4)), np.eye(4))
    found = prepare_volume(volume, align_grid((3, 3, 3), 1.0, np.full(3, 50.0)), (0, 100))
    np.testing.assert_array_equal(found, 0.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_percentiles_become_zero_and_one(dtype):
    voxels = np.random.default_rng(1).permutation(125).reshape(5, 5, 5).astype(dtype)
    low, high = 12.4, 111.6  # of 0 .. 124
    np.testing.assert_allclose(find_levels(make_volume(voxels, np.eye(4)), (10, 90)), (low, high))
    grid = align_grid((5, 5, 5), 1.0, np.zeros(3))
    found = prepare_volume(make_volume(voxels, np.eye(4)), grid, (10, 90))
    expected = np.clip((voxels.astype(float) - low) / (high - low), 0, 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_percentiles_are_those_of_the_file_and_not_of_the_grid():
    """A grid that holds only the dark half still has it dark."""
    voxels = np.zeros((8, 4, 4), np.float32)
    voxels[:4] = np.linspace(0, 10, 4 * 4 * 4).reshape(4, 4, 4)
    voxels[4:] = 100.0
    grid = align_grid((4, 4, 4), 1.0, np.zeros(3))
    found = prepare_volume(make_volume(voxels, np.eye(4)), grid, (0, 100))
    np.testing.assert_allclose(found, voxels[:4] / 100, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_volume_without_contrast_is_refused(dtype):
    volume = make_volume(np.full((4, 4, 4), 3, dtype), np.eye(4))
    with pytest.raises(InputError, match=r"^scan.nii.gz: expected a volume with contrast, got 3 "):
        prepare(volume, 4, 1.0)
