"""From a file to the grid: one place in mm is one voxel, however the file stores its axes."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from fetal_jax.data.dataset import read_dataset
from fetal_jax.data.preprocess import (
    BORDER_VOX,
    Preprocessing,
    find_cut_cases,
    prepare_dataset,
    prepare_volume,
    propose_grid,
)
from fetal_jax.errors import InputError
from fetal_jax.io.markups import write_landmarks
from fetal_jax.io.volumes import Volume, write_nifti

SHAPE = (12, 14, 16)
SPACING = np.array([1.5, 1.25, 1.0])
ORIGIN = np.array([-7.25, 4.5, 2.125])  # exact in float32, in which NIfTI keeps them
AFFINE = np.block([[np.diag(SPACING), ORIGIN[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])
POINTS = {"nose": [0.0, 15.0, 9.0], "L": [-4.5, 10.0, 12.5], "R": [6.0, 8.25, 5.0]}
ORDERS = [
    pytest.param(np.array(list(zip(order, flips, strict=True))), id=f"{order}{flips}")
    for order in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]


def index_to_world(affine, shape):
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def draw_blobs(affine=AFFINE, shape=SHAPE, width_mm=3.0):
    """A gaussian of its own height at each landmark: no symmetry is left."""
    world = index_to_world(affine, shape)
    volume = 0.0
    for height, point in zip((1.0, 0.8, 0.5), POINTS.values(), strict=True):
        squared = ((world - np.array(point)) ** 2).sum(axis=-1)
        volume = volume + height * np.exp(-squared / (2 * width_mm**2))
    return (1000 * volume).astype(np.float32)


def reorder(voxels, affine, orders):
    """The same volume stored with other axes, by nibabel."""
    stored = nib.orientations.apply_orientation(voxels, orders)
    return stored, affine @ nib.orientations.inv_ornt_aff(orders, voxels.shape)


def turn(affine, degrees=(20, -35, 50)):
    """The affine turned about all three axes: an oblique volume."""
    turned = affine
    for axis, angle in enumerate(np.deg2rad(degrees)):
        rotation = np.eye(4)
        a, b = [i for i in range(3) if i != axis]
        rotation[[a, a, b, b], [a, b, a, b]] = [
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        ]
        turned = rotation @ turned
    return turned


def make_volume(voxels, affine):
    return Volume(np.asarray(voxels), np.asarray(affine, np.float64), Path("scan.nii.gz"))


def settings(side, spacing_mm, percentiles=(0.5, 99.5)):
    return Preprocessing(side, spacing_mm, percentiles)


@pytest.mark.parametrize("orders", ORDERS)
def test_axis_order_does_not_show(orders):
    asked = settings(8, 2.3)
    expected, grid = prepare_volume(make_volume(draw_blobs(), AFFINE), asked)
    stored = make_volume(*reorder(draw_blobs(), AFFINE, orders))
    found, same = prepare_volume(stored, asked)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(same.origin_mm, grid.origin_mm, atol=1e-6)


@pytest.mark.parametrize("orders", ORDERS)
def test_axis_order_does_not_show_in_the_border_voxels(orders):
    """The grid's outer centres fall on the file's, where a rounding error is outside."""
    affine = np.diag([0.7, 0.7, 0.7, 1.0])
    affine[:3, 3] = -3.1, 12.7, 0.3
    voxels = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
    asked = settings(8, 0.7, (0, 100))
    found, _ = prepare_volume(make_volume(*reorder(voxels, affine, orders)), asked)
    expected = (voxels - voxels.min()) / (voxels.max() - voxels.min())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_files_of_any_axis_order(tmp_path):
    """Twelve of the orders as NIfTI files: volumes and landmarks come out alike."""
    for number, orders in enumerate(p.values[0] for p in ORDERS[::4]):
        voxels, affine = reorder(draw_blobs(), AFFINE, orders)
        write_nifti(tmp_path / "volumes" / f"{number}.nii.gz", voxels, affine)
        system = "LPS" if number % 2 else "RAS"
        path = tmp_path / "landmarks" / f"{number}.mrk.json"
        write_landmarks(path, POINTS, coordinate_system=system)
    side, spacing_mm = 16, 1.25
    dataset = read_dataset(tmp_path)
    prepared = prepare_dataset(dataset, settings(side, spacing_mm))
    assert len(prepared) == 12 and prepared.volumes.dtype == np.float16
    centre = ORIGIN + SPACING * (np.array(SHAPE) - 1) / 2
    expected = (np.array([POINTS[label] for label in dataset.labels]) - centre) / spacing_mm
    expected += (side - 1) / 2
    vox = np.broadcast_to(expected, prepared.points_vox.shape)
    np.testing.assert_allclose(prepared.points_vox * spacing_mm, vox * spacing_mm, atol=1e-6)
    for volume, grid in zip(prepared.volumes, prepared.grids, strict=True):
        np.testing.assert_allclose(volume, prepared.volumes[0], atol=1e-3)  # float16
        np.testing.assert_allclose(grid.origin_mm, prepared.grids[0].origin_mm, atol=1e-6)
    # the brightest voxel is the one that holds the highest blob
    nose = expected[dataset.labels.index("nose")]
    peak = np.unravel_index(np.argmax(prepared.volumes[0]), (side,) * 3)
    assert np.abs(peak - nose).max() <= 0.5 + 0.25


def test_oblique_volume_keeps_its_place():
    """Interpolation and smoothing keep a linear function exactly; here it is one of RAS mm."""
    affine = turn(AFFINE)
    slope = np.array([0.4, -0.3, 0.2])
    voxels = index_to_world(affine, SHAPE) @ slope
    side, spacing_mm = 6, 1.7
    found, grid = prepare_volume(make_volume(voxels, affine), settings(side, spacing_mm, (0, 100)))
    expected = index_to_world(grid.affine, (side,) * 3) @ slope
    expected = (expected - voxels.min()) / (voxels.max() - voxels.min())
    to_file = np.linalg.inv(affine)
    index = index_to_world(grid.affine, (side,) * 3) @ to_file[:3, :3].T + to_file[:3, 3]
    # 4 sd, where the gaussian is cut off, are under 3 voxels here; a voxel for the interpolation
    deep = ((index >= 4) & (index <= np.array(SHAPE) - 5)).all(axis=-1)
    assert deep.sum() > 30
    np.testing.assert_allclose(found[deep], expected[deep], atol=1e-6)


def test_value_at_a_landmark_of_an_oblique_volume():
    affine = turn(AFFINE)
    width_mm = 5.0
    middle = index_to_world(affine, SHAPE)[6, 7, 8]
    squared = ((index_to_world(affine, SHAPE) - middle) ** 2).sum(axis=-1)
    voxels = np.exp(-squared / (2 * width_mm**2))
    found, grid = prepare_volume(make_volume(voxels, affine), settings(16, 1.0, (0, 100)))
    points = middle + np.array([[0, 0, 0], [3.0, -2.0, 1.0], [-2.5, 1.5, 3.5], [1.0, 4.0, -2.0]])
    at_points = ndimage.map_coordinates(found, grid.to_voxels(points).T, order=1)
    truth = np.exp(-((points - middle) ** 2).sum(axis=-1) / (2 * width_mm**2))
    truth = (truth - voxels.min()) / (voxels.max() - voxels.min())
    # two linear interpolations err by at most Σ h²/8 |f''|, and |f''| <= 1/σ²
    tolerance = ((SPACING**2).sum() + 3 * 1.0**2) / (8 * width_mm**2)
    assert tolerance < 0.05
    np.testing.assert_allclose(at_points, truth, atol=tolerance)


def test_smoothing_only_where_the_grid_is_coarser():
    voxels = np.zeros((16, 8, 8))
    voxels[8, 4, 3] = 1.0
    affine = np.diag([1.0, 2.0, 2.5, 1.0])
    found, _ = prepare_volume(make_volume(voxels, affine), settings(8, 2.0, (0, 100)))
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
    found, _ = prepare_volume(make_volume(voxels, np.eye(4)), settings(8, 1.0, (0, 100)))
    expected = np.zeros((8, 8, 8))
    expected[2:6, 2:6, 2:6] = voxels / 7
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_percentiles_become_zero_and_one(dtype):
    voxels = np.random.default_rng(1).permutation(125).reshape(5, 5, 5).astype(dtype)
    found, _ = prepare_volume(make_volume(voxels, np.eye(4)), settings(5, 1.0, (10, 90)))
    low, high = 12.4, 111.6  # of 0 .. 124
    expected = np.clip((voxels.astype(float) - low) / (high - low), 0, 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_volume_without_contrast_is_refused():
    with pytest.raises(InputError, match=r"^scan.nii.gz: expected a volume with contrast, got 3 "):
        prepare_volume(make_volume(np.full((4, 4, 4), 3), np.eye(4)), settings(4, 1.0))


def write_case(root, name, points, shape=(10, 20, 10), spacing=(1.0, 1.0, 1.0)):
    affine = np.diag([*spacing, 1.0])
    voxels = np.random.default_rng(2).integers(0, 200, shape, dtype=np.uint8)
    write_nifti(root / "volumes" / f"{name}.nii.gz", voxels, affine)
    write_landmarks(root / "landmarks" / f"{name}.mrk.json", points)


@pytest.mark.parametrize(
    ("side", "spacing_mm", "expected"),
    [
        pytest.param(16, 0.0, (16, 1.88), id="30 mm in 16 voxels, rounded up"),
        pytest.param(20, 0.0, (20, 1.5), id="30 mm in 20 voxels"),
        pytest.param(0, 0.0, (48, 0.63), id="30 mm in 48 voxels"),
        pytest.param(300, 0.0, (300, 0.5), id="not finer than the finest file"),
        pytest.param(16, 1.1, (16, 1.1), id="given"),
        pytest.param(0, 3.0, (48, 3.0), id="spacing given"),
    ],
)
def test_propose_grid(tmp_path, side, spacing_mm, expected):
    write_case(tmp_path, "a", {"p": np.ones(3)})  # 10 x 20 x 10 mm
    write_case(tmp_path, "b", {"p": np.ones(3)}, (12, 10, 12), (0.5, 3.0, 1.0))  # 6 x 30 x 12
    dataset = read_dataset(tmp_path)
    assert propose_grid(dataset, side=side, spacing_mm=spacing_mm) == expected


def test_spacing_of_a_float32_header_is_not_rounded_up(tmp_path):
    write_case(tmp_path, "a", {"p": np.ones(3)}, (8, 8, 8), (0.1, 0.1, 0.1))
    assert propose_grid(read_dataset(tmp_path), side=8, spacing_mm=0.0) == (8, 0.1)


def test_find_cut_cases(tmp_path):
    write_case(tmp_path, "long", {"p": np.ones(3)})
    write_case(tmp_path, "short", {"p": np.ones(3)}, (9, 10, 9))
    dataset = read_dataset(tmp_path)
    assert find_cut_cases(dataset, side=8, spacing_mm=2.5) == []
    assert find_cut_cases(dataset, side=8, spacing_mm=2.0) == ["long"]
    assert find_cut_cases(dataset, side=8, spacing_mm=1.0) == ["long", "short"]


def test_absent_and_completed_points(tmp_path):
    write_case(tmp_path, "a", {"p": np.array([2.0, 3.0, 4.0]), "q": np.full(3, np.nan)})
    write_case(tmp_path, "b", {"q": np.array([1.0, 1.0, 1.0]), "p": np.array([5.0, 6.0, 7.0])})
    (tmp_path / "cases.csv").write_text("case,visible\nb,q\n")
    prepared = prepare_dataset(read_dataset(tmp_path), settings(8, 3.0))
    np.testing.assert_array_equal(prepared.present, [[True, False], [True, True]])
    np.testing.assert_array_equal(prepared.visible, [[True, False], [False, True]])
    np.testing.assert_array_equal(prepared.points_mm[0], [[2, 3, 4], [np.nan] * 3])
    np.testing.assert_array_equal(prepared.points_vox[0, 1], [0, 0, 0])
    # the centre, (4.5, 9.5, 4.5) mm, is voxel 3.5
    centre = np.array([4.5, 9.5, 4.5])
    np.testing.assert_allclose(
        prepared.points_vox[1], (np.array([[5, 6, 7], [1, 1, 1]]) - centre) / 3 + 3.5, atol=1e-6
    )
    second = prepared.select([1])
    assert second.subjects == ["b"] and len(second) == 1
    np.testing.assert_array_equal(second.points_vox[0], prepared.points_vox[1])


def test_border_clicks_are_inside(tmp_path):
    reach = BORDER_VOX - 0.01
    points = {"low": np.array([-reach, 3.0, 4.0]), "high": np.array([9 + reach, 3.0, 4.0])}
    write_case(tmp_path, "a", points)
    prepared = prepare_dataset(read_dataset(tmp_path), settings(16, 1.5))
    assert prepared.present.all()
    np.testing.assert_allclose(prepared.points_mm[0], list(points.values())[::-1])


def test_landmarks_outside_are_named_a_line_a_case(tmp_path):
    far = np.array([-BORDER_VOX - 0.01, 3.0, 4.0])
    write_case(tmp_path, "a", {"p": far, "q": np.full(3, 99.0)})
    write_case(tmp_path, "b", {"p": np.full(3, 5.0), "q": np.full(3, 6.0)})
    write_case(tmp_path, "c", {"p": np.full(3, 5.0), "q": np.array([5.0, 19.6, 5.0])})
    dataset = read_dataset(tmp_path)
    with pytest.raises(InputError) as caught:
        prepare_dataset(dataset, settings(16, 1.0))
    a, c = caught.value.problems
    assert a == (
        f"{tmp_path}/landmarks/a.mrk.json: expected landmarks inside the volume of a.nii.gz, RAS "
        "(-0.5, -0.5, -0.5) to (9.5, 19.5, 9.5) mm, got p at (-2.0, 3.0, 4.0) and 1 more"
    )
    assert c == (
        f"{tmp_path}/landmarks/c.mrk.json: expected landmarks inside the grid of c.nii.gz, RAS "
        "(-3.5, 1.5, -3.5) to (12.5, 17.5, 12.5) mm, got q at (5.0, 19.6, 5.0)"
    )


def test_kept_grids_are_those_that_are_made(tmp_path, monkeypatch):
    write_case(tmp_path, "a", {"p": np.array([2.0, 3.0, 4.0]), "q": np.full(3, np.nan)})
    write_case(tmp_path, "b", {"q": np.array([1.0, 1.0, 1.0]), "p": np.array([5.0, 6.0, 7.0])})
    dataset, cache = read_dataset(tmp_path), tmp_path / "grids"
    plain = prepare_dataset(dataset, settings(16, 1.5))
    made = prepare_dataset(dataset, settings(16, 1.5), cache=cache)
    monkeypatch.setattr("fetal_jax.preprocess.read_volume", None)  # nobody may read a voxel
    kept = prepare_dataset(dataset, settings(16, 1.5), cache=cache)
    for found in (made, kept):
        assert [g.origin_mm.tolist() for g in found.grids] == [
            g.origin_mm.tolist() for g in plain.grids
        ]
        for name in ("volumes", "points_mm", "points_vox", "present", "visible"):
            np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
