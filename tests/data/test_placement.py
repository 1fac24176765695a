"""Where a grid lies, by arithmetic on the corners of the files."""

import gzip

import numpy as np
import pytest
from volumes import OBLIQUE, make_data, turn

from fetal_jax import geometry
from fetal_jax.data.case_table import Case
from fetal_jax.data.dataset import Dataset, read_dataset
from fetal_jax.data.placement import (
    Jitter,
    Source,
    centre_placement,
    find_cut_cases,
    fit_box,
    frame_placement,
    is_cut,
    propose_grid,
)
from fetal_jax.errors import InputError
from fetal_jax.io.volumes import write_nifti


def test_the_centre_of_a_volume_by_hand():
    """10 x 20 x 30 voxels of 1 x 2 x 0.5 mm from (-3, 5, 7): the middle is (1.5, 24, 14.25)."""
    affine = np.diag([1.0, 2.0, 0.5, 1.0])
    affine[:3, 3] = -3, 5, 7
    grid = centre_placement(side=8, spacing_mm=3.0).place(Source((10, 20, 30), affine), None)
    assert grid.shape == (8, 8, 8) and grid.spacing_mm == 3.0
    expected = np.diag([3.0, 3.0, 3.0, 1.0])
    expected[:3, 3] = np.array([1.5, 24.0, 14.25]) - 3.0 * 3.5
    np.testing.assert_allclose(grid.affine, expected, atol=1e-12)


def test_an_oblique_volume_has_its_centre_there_and_the_world_s_axes():
    shape = (9, 14, 5)
    grid = centre_placement(side=7, spacing_mm=1.3).place(Source(shape, OBLIQUE), None)
    middle = OBLIQUE @ [4.0, 6.5, 2.0, 1.0]
    np.testing.assert_allclose(grid.to_world(np.full(3, 3.0)), middle[:3], atol=1e-12)
    np.testing.assert_array_equal(grid.affine[:3, :3], 1.3 * np.eye(3))


def test_the_middle_asks_for_neither_chance_nor_landmarks():
    placement = centre_placement(side=6, spacing_mm=2.0)
    assert not placement.varies
    plain = placement.place(Source((8, 8, 8), np.eye(4)), None)
    rng = np.random.default_rng(0)
    drawn = placement.place(Source((8, 8, 8), np.eye(4), np.full((2, 3), 3.0)), rng)
    np.testing.assert_array_equal(plain.affine, drawn.affine)
    assert rng.random() == np.random.default_rng(0).random()  # nothing was drawn from it


CUBE = (10, 10, 10)


@pytest.mark.parametrize(
    ("affine", "width_mm", "expected"),
    [
        pytest.param(np.eye(4), 10.0, False, id="as wide"),
        pytest.param(np.eye(4), 9.96, False, id="half a percent is rounding"),
        pytest.param(np.eye(4), 9.94, True, id="more is not"),
        pytest.param(np.diag([1, 2, 1, 1.0]), 10.0, True, id="longer along one axis"),
        pytest.param(turn(np.eye(4), (0, 0, 45)), 14.0, True, id="its diagonal is 14.1 mm"),
        pytest.param(turn(np.eye(4), (0, 0, 45)), 14.2, False, id="and fits into 14.2"),
    ],
)
def test_is_cut(affine, width_mm, expected):
    assert is_cut(CUBE, affine, width_mm=width_mm) is expected


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
    dataset = make_data(
        tmp_path,
        a=dict(shape=(10, 20, 10)),
        b=dict(shape=(12, 10, 12), spacing=(0.5, 3.0, 1.0)),  # 6 x 30 x 12 mm
    )
    assert propose_grid(dataset, [0, 1], side=side, spacing_mm=spacing_mm) == expected


def test_the_proposed_grid_holds_every_volume(tmp_path):
    dataset = make_data(tmp_path, a=dict(shape=(10, 20, 10)), b=dict(spacing=(0.7, 1.9, 1.1)))
    side, spacing_mm = propose_grid(dataset, [0, 1], side=13, spacing_mm=0.0)
    assert find_cut_cases(dataset.cases, side=side, spacing_mm=spacing_mm) == []
    assert find_cut_cases(dataset.cases, side=side, spacing_mm=0.98 * spacing_mm)


def test_what_is_held_out_does_not_decide_the_grid(tmp_path):
    """The long one is named by `find_cut_cases` instead; another choice, another grid."""
    dataset = make_data(tmp_path, a={}, b=dict(shape=(10, 60, 10)), c=dict(spacing=(0.1, 1, 1)))
    assert propose_grid(dataset, [0], side=10, spacing_mm=0.0) == (10, 2.0)
    assert find_cut_cases(dataset.cases, side=10, spacing_mm=2.0) == ["b"]
    assert propose_grid(dataset, [0, 1], side=10, spacing_mm=0.0) == (10, 6.0)
    assert propose_grid(dataset, [0], side=50, spacing_mm=0.0) == (50, 1.0)
    assert propose_grid(dataset, [0, 2], side=50, spacing_mm=0.0) == (50, 0.4)


def test_spacing_of_a_float32_header_is_not_rounded_up(tmp_path):
    dataset = make_data(tmp_path, a=dict(shape=(8, 8, 8), spacing=(0.1, 0.1, 0.1)))
    assert propose_grid(dataset, [0], side=8, spacing_mm=0.0) == (8, 0.1)


def test_find_cut_cases(tmp_path):
    dataset = make_data(tmp_path, long=dict(shape=(10, 20, 10)), short=dict(shape=(9, 10, 9)))
    assert find_cut_cases(dataset.cases, side=8, spacing_mm=2.5) == []
    assert find_cut_cases(dataset.cases, side=8, spacing_mm=2.0) == ["long"]
    assert find_cut_cases(dataset.cases, side=8, spacing_mm=1.0) == ["long", "short"]


def test_where_one_header_is_bad_all_bad_files_are_named(tmp_path):
    make_data(tmp_path, a={}, b={}, c={})
    paths = [tmp_path / "volumes" / f"{name}.nii.gz" for name in "abc"]
    paths[0].write_bytes(gzip.compress(b"no header"))
    paths[2].write_bytes(paths[2].read_bytes()[:-40])  # its header is whole
    with pytest.raises(InputError) as caught:
        propose_grid(read_dataset(tmp_path), [0, 1], side=8, spacing_mm=0.0)
    assert [p.split(":")[0] for p in caught.value.problems] == [str(paths[0]), str(paths[2])]


def test_a_source_s_bounds_are_what_the_grid_must_hold():
    """world_bounds counts voxels with their extent, so 48 voxels of 2 mm hold 96 mm."""
    low, high = geometry.world_bounds((96, 96, 96), np.eye(4))
    np.testing.assert_array_equal(high - low, 96.0)
    assert not is_cut((96, 96, 96), np.eye(4), width_mm=48 * 2.0)


SHAPE_MM = np.array([[-20.0, 0, 0], [20, 0, 0], [0, 12, -30], [0, 4, 10.0]])


def test_a_box_holds_the_shape_and_its_margin():
    """40 x 12 x 40 mm and 5 mm on each side: 50 x 22 x 50 in voxels of 2 mm and multiples of 4."""
    box = fit_box(SHAPE_MM, spacing_mm=2.0, margin_mm=5.0, multiple=4, voxels=0)
    assert box.shape == (28, 12, 28) and box.spacing_mm == 2.0
    np.testing.assert_allclose(box.to_world((np.array(box.shape) - 1) / 2), [0, 6, -10])
    assert box.contains(SHAPE_MM, margin_mm=-5.0).all()


def test_a_box_of_about_so_many_voxels():
    """Its margin is then a share of the shape's length: 0.15 of 40 mm."""
    box = fit_box(SHAPE_MM, spacing_mm=0.0, margin_mm=0.0, multiple=2, voxels=20**3)
    extent = np.array([52.0, 24, 52])
    assert box.spacing_mm == pytest.approx((extent.prod() / 8000) ** (1 / 3), abs=0.011)
    assert 8000 * 0.9 < np.prod(box.shape) < 8000 * 1.4
    assert (np.array(box.shape) * box.spacing_mm >= extent).all()


FRAME = turn(np.diag([1.2, 1.2, 1.2, 1.0]))
FRAME[:3, 3] = 5, -60, 200
BOX = fit_box(SHAPE_MM, spacing_mm=2.0, margin_mm=5.0, multiple=4, voxels=0)


def test_a_box_follows_its_frame():
    """A voxel of the box is carried by the frame, and is as much larger as the face is."""
    placement = frame_placement(BOX, Jitter(10.0, 0.1, 2.0))
    assert placement.varies
    grid = placement.place(Source((9, 9, 9), np.eye(4), frame=FRAME), None)
    assert grid.shape == BOX.shape and grid.spacing_mm == pytest.approx(2.4)
    voxels = np.array([[0.0, 0, 0], [3, 1, 7], [27, 11, 27]])
    expected = geometry.apply_affine(FRAME, BOX.to_world(voxels))
    np.testing.assert_allclose(grid.to_world(voxels), expected)


def test_a_box_is_off_by_no_more_than_it_may_be():
    placement = frame_placement(BOX, Jitter(10.0, 0.1, 2.0))
    source = Source((9, 9, 9), np.eye(4), frame=FRAME)
    straight = placement.place(source, None)
    middle = (np.array(BOX.shape) - 1) / 2
    angles, scales, shifts = [], [], []
    for seed in range(300):
        grid = placement.place(source, np.random.default_rng(seed))
        scales.append(grid.spacing_mm / straight.spacing_mm)
        turned = np.linalg.solve(straight.affine[:3, :3], grid.affine[:3, :3]) / scales[-1]
        assert np.linalg.det(turned) == pytest.approx(1.0)
        angles.append(np.degrees(np.arccos(np.clip((np.trace(turned) - 1) / 2, -1, 1))))
        shifts.append(straight.to_voxels(grid.to_world(middle)) - middle)
    assert 9.5 < max(angles) <= 10.0 + 1e-6
    # an angle whose density grows with its square: a mean of three quarters
    assert np.mean(angles) == pytest.approx(7.5, abs=0.4)
    assert 0.9 <= min(scales) < 0.91 and 1.09 < max(scales) <= 1.1
    assert np.abs(shifts).max() <= 2.0 + 1e-9 and np.abs(shifts).max(axis=0).min() > 1.9
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.3
    again = placement.place(source, np.random.default_rng(7)).affine
    np.testing.assert_array_equal(again, placement.place(source, np.random.default_rng(7)).affine)


def test_without_jitter_there_is_none():
    placement = frame_placement(BOX, Jitter(0.0, 0.0, 0.0))
    source = Source((9, 9, 9), np.eye(4), frame=FRAME)
    grids = [placement.place(source, rng) for rng in (None, np.random.default_rng(0))]
    np.testing.assert_allclose(grids[0].affine, grids[1].affine)


@pytest.mark.parametrize("spacing_mm", [100.0, 0.001])
def test_a_header_in_another_unit_does_not_decide_the_grid_of_all(tmp_path, spacing_mm):
    """100 times too large, or in metres."""
    for i in range(4):
        affine = np.diag([spacing_mm if i == 2 else 1.0] * 3 + [1.0])
        write_nifti(tmp_path / f"c{i}.nii.gz", np.ones((12, 10, 8), np.uint8), affine)
    cases = [Case(f"c{i}", tmp_path / f"c{i}.nii.gz", None, f"s{i}") for i in range(4)]
    dataset = Dataset(tmp_path, tuple(cases), (), ())
    with pytest.raises(InputError, match="c2.nii.gz: expected a volume about as long as"):
        propose_grid(dataset, range(4), side=8, spacing_mm=0.0)
    assert propose_grid(dataset, [0, 1, 3], side=8, spacing_mm=0.0) == (8, 1.5)
    assert propose_grid(dataset, range(4), side=8, spacing_mm=2.0) == (8, 2.0)
