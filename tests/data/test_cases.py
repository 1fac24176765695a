"""Cases on their grids: points in the right voxels, and a line for each case that cannot be."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy import ndimage
from volumes import AFFINE as FILE_AFFINE
from volumes import ORIGIN, POINTS, SHAPE, SPACING, draw_blobs, make_data, reorder, turn

from fetal_jax.data import cases, grid_cache
from fetal_jax.data.cases import (
    BORDER_VOX,
    bind_files,
    place_anew,
    place_cases,
    prepare_dataset,
)
from fetal_jax.data.dataset import read_dataset
from fetal_jax.data.loader import load_examples, sample_indices
from fetal_jax.data.placement import Placement, centre_placement
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.data.twins import find_twins
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid
from fetal_jax.io.mapped_arrays import is_mapped
from fetal_jax.io.markups import write_landmarks
from fetal_jax.io.volumes import write_nifti

NOWHERE = (np.nan,) * 3


def prepare(dataset, side, spacing_mm, **options):
    placement = centre_placement(side=side, spacing_mm=spacing_mm)
    asked = Preprocessing(side, spacing_mm, (0.5, 99.5))
    return prepare_dataset(dataset, placement, asked, **options)


def write_blobs(root, orders, number=0):
    """One volume of blobs with its landmarks, its axes stored in another order."""
    voxels, affine = reorder(draw_blobs(), FILE_AFFINE, orders)
    write_nifti(root / "volumes" / f"{number}.nii.gz", voxels, affine)
    system = "LPS" if number % 2 else "RAS"
    path = root / "landmarks" / f"{number}.mrk.json"
    write_landmarks(path, POINTS, coordinate_system=system)


def test_files_of_any_axis_order(tmp_path):
    """Twelve of the orders as NIfTI files: volumes and landmarks come out alike."""
    orders = list(product(permutations(range(3)), product((1, -1), repeat=3)))[::4]
    for number, (order, flips) in enumerate(orders):
        write_blobs(tmp_path, np.array(list(zip(order, flips, strict=True))), number)
    side, spacing_mm = 16, 1.25
    dataset = read_dataset(tmp_path)
    prepared = prepare(dataset, side, spacing_mm)
    assert len(prepared) == 12 and prepared.volumes.dtype == np.float16
    centre = ORIGIN + SPACING * (np.array(SHAPE) - 1) / 2
    expected = (np.array([POINTS[label] for label in dataset.labels]) - centre) / spacing_mm
    expected += (side - 1) / 2
    vox = np.broadcast_to(expected, prepared.points_vox.shape)
    np.testing.assert_allclose(prepared.points_vox * spacing_mm, vox * spacing_mm, atol=1e-6)
    for volume, grid in zip(prepared.volumes, prepared.grids, strict=True):
        np.testing.assert_allclose(volume, prepared.volumes[0], atol=1e-3)  # float16
        np.testing.assert_allclose(grid.affine, prepared.grids[0].affine, atol=1e-6)
    # the brightest voxel is the one that holds the highest blob
    nose = expected[dataset.labels.index("nose")]
    peak = np.unravel_index(np.argmax(prepared.volumes[0]), (side,) * 3)
    assert np.abs(peak - nose).max() <= 0.5 + 0.25


def test_absent_and_completed_points(tmp_path):
    make_data(
        tmp_path,
        a=dict(points={"p": (2, 3, 4), "q": NOWHERE}),
        b=dict(points={"q": (1, 1, 1), "p": (5, 6, 7)}),
    )
    (tmp_path / "cases.csv").write_text("case,visible\nb,q\n")
    prepared = prepare(read_dataset(tmp_path), 8, 3.0)
    np.testing.assert_array_equal(prepared.present, [[True, False], [True, True]])
    np.testing.assert_array_equal(prepared.visible, [[True, False], [False, True]])
    np.testing.assert_array_equal(prepared.points_mm[0], [[2, 3, 4], NOWHERE])
    np.testing.assert_array_equal(prepared.points_vox[0, 1], [0, 0, 0])
    # the centre, (4.5, 9.5, 4.5) mm, is voxel 3.5
    centre = np.array([4.5, 9.5, 4.5])
    np.testing.assert_allclose(
        prepared.points_vox[1], (np.array([[5, 6, 7], [1, 1, 1]]) - centre) / 3 + 3.5, atol=1e-6
    )


def test_select_and_join(make_prepared):
    points = np.random.default_rng(0).uniform(0, 7, (4, 2, 3))
    points[2, 1] = np.nan
    prepared = make_prepared(points, subjects=["s0", "s0", "s1", "s2"])
    chosen = prepared.select([2, 0])
    assert chosen.subjects == ["s1", "s0"] and len(chosen) == 2
    assert [case.name for case in chosen.cases] == ["c2", "c0"]
    np.testing.assert_array_equal(chosen.volumes, prepared.volumes[[2, 0]])
    np.testing.assert_array_equal(chosen.present, [[True, False], [True, True]])
    assert chosen.grids == (prepared.grids[2], prepared.grids[0])
    joined = prepared.select([0]).join(prepared.select([1, 2]), prepared.select([3]))
    assert joined.cases == prepared.cases
    for name in ("volumes", "points_mm", "points_vox", "visible", "spread_mm"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(prepared, name))
    assert len(prepared.select([])) == 0


def test_voxels_to_mm_by_each_case_s_own_grid(make_prepared):
    """The grid of case n begins at (10 n, 0, -5) mm, with voxels of 2 mm."""
    prepared = make_prepared(np.full((2, 1, 3), 3.0))
    found = prepared.to_world(np.array([[[1.0, 2, 3]], [[0, 0, 0]]]))
    np.testing.assert_allclose(found, [[[2, 4, 1]], [[10, 0, -5]]])


def test_mean_positions_by_hand(make_prepared):
    """Means over the cases that have the point; the middle of the grid where none has it."""
    points = np.array([[[1.0, 2, 3], NOWHERE, NOWHERE], [[3.0, 2, 5], [4, 4, 4], NOWHERE]])
    found = make_prepared(points).mean_positions()  # 8 voxels of 2 mm
    np.testing.assert_allclose(found, [[4, 4, 8], [8, 8, 8], [7, 7, 7]])


def test_border_clicks_are_inside(tmp_path):
    reach = BORDER_VOX - 0.01
    points = {"low": (-reach, 3, 4), "high": (9 + reach, 3, 4)}
    prepared = prepare(make_data(tmp_path, a=dict(points=points)), 16, 1.5)
    assert prepared.present.all()
    np.testing.assert_allclose(prepared.points_mm[0], list(points.values())[::-1])


def test_landmarks_outside_are_named_a_line_a_case(tmp_path):
    dataset = make_data(
        tmp_path,
        a=dict(points={"p": (-BORDER_VOX - 0.01, 3, 4), "q": (99, 99, 99)}),
        b=dict(points={"p": (5, 5, 5), "q": (6, 6, 6)}),
        c=dict(points={"p": (5, 5, 5), "q": (5, 19.6, 5)}),
    )
    with pytest.raises(InputError) as caught:
        prepare(dataset, 16, 1.0)
    a, c = caught.value.problems
    assert a == (
        f"{tmp_path}/landmarks/a.mrk.json: expected landmarks inside the volume of a.nii.gz, RAS "
        "(-0.5, -0.5, -0.5) to (9.5, 19.5, 9.5) mm, got p at (-2.0, 3.0, 4.0) and 1 more"
    )
    assert c == (
        f"{tmp_path}/landmarks/c.mrk.json: expected landmarks inside the grid of c.nii.gz, RAS "
        "(-3.5, 1.5, -3.5) to (12.5, 17.5, 12.5) mm, got q at (5.0, 19.6, 5.0)"
    )


def test_a_held_out_landmark_may_lie_outside_the_grid_and_not_outside_its_volume(tmp_path):
    dataset = make_data(
        tmp_path,
        a=dict(points={"p": (5, 5, 5), "q": (5, 19.6, 5)}),
        b=dict(points={"p": (5, 5, 5), "q": (99, 99, 99)}),
        c=dict(points={"p": (5, 5, 5), "q": (5, 19.6, 5)}),
    )
    with pytest.raises(InputError) as caught:
        prepare(dataset, 16, 1.0, held_out=[0, 1])
    b, c = caught.value.problems
    assert "expected landmarks inside the volume of b" in b
    assert "expected landmarks inside the grid of c" in c
    (tmp_path / "landmarks" / "b.mrk.json").unlink()
    (tmp_path / "volumes" / "b.nii.gz").unlink()
    prepared = prepare(read_dataset(tmp_path), 16, 1.0, held_out=[0, 1])
    assert prepared.present.all() and prepared.find_outside([0, 1]) == ["a", "c"]
    np.testing.assert_allclose(prepared.points_mm[0, 1], [5, 19.6, 5])
    # voxel 0 is at 2 mm, the last at 17
    np.testing.assert_allclose(prepared.points_vox[:, 1, 1], 17.6, rtol=1e-6)


def test_kept_grids_are_those_that_are_made(tmp_path, monkeypatch):
    dataset = make_data(
        tmp_path,
        a=dict(points={"p": (2, 3, 4), "q": NOWHERE}),
        b=dict(points={"q": (1, 1, 1), "p": (5, 6, 7)}),
    )
    cache = tmp_path / "grids"
    plain, made = prepare(dataset, 16, 1.5), prepare(dataset, 16, 1.5, cache=cache)
    monkeypatch.setattr(cases, "read_volume", None)  # nobody may read a voxel
    kept = prepare(dataset, 16, 1.5, cache=cache)
    for found in (made, kept):
        for grid, other in zip(found.grids, plain.grids, strict=True):
            np.testing.assert_array_equal(grid.affine, other.affine)
        for name in ("volumes", "points_mm", "points_vox", "present", "visible"):
            np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    with pytest.raises(TypeError, match="not callable"):  # another grid is no hit
        prepare(dataset, 16, 1.75, cache=cache)


@pytest.fixture
def three(tmp_path):
    """Three cases, the last of them the first one's scan, and where grids are kept."""
    dataset = make_data(tmp_path, a={}, b={}, c={})
    voxels = np.random.default_rng(5).integers(0, 200, (10, 20, 10), dtype=np.uint8)
    write_nifti(tmp_path / "volumes" / "b.nii.gz", voxels, np.eye(4))
    return dataset, tmp_path / "grids"


@pytest.fixture
def opened(monkeypatch):
    """Names of the volumes whose grids were opened."""
    names, whole = [], grid_cache.Kept.open

    def open_counted(kept):
        names.append(kept.source.name)
        return whole(kept)

    monkeypatch.setattr(grid_cache.Kept, "open", open_counted)
    return names


def test_a_later_start_opens_no_grid_and_finds_twins_all_the_same(three, opened, monkeypatch):
    dataset, cache = three
    prepare(dataset, 16, 1.5, cache=cache)
    monkeypatch.setattr(cases, "read_volume", None)
    prepared = prepare(dataset, 16, 1.5, cache=cache)
    assert not opened
    assert find_twins(prepared, ["train", "test", "train"], "split") == []
    assert not opened
    (problem,) = find_twins(prepared, ["train", "test", "test"], "split")
    assert "a.nii.gz in train" in problem and "c.nii.gz in test" in problem
    assert set(opened) == {"a.nii.gz", "c.nii.gz"}


def test_a_process_opens_its_share_alone(three, opened):
    dataset, cache = three
    prepared = prepare(dataset, 16, 1.5, cache=cache).select([0, 1])
    examples = [
        load_examples(prepared, 0, batch=2, seed=0, share=share)
        for share in (slice(1), slice(1, 2))
    ]
    chosen = sample_indices(2, 0, batch=2, seed=0)
    assert opened == [prepared.cases[i].volume_path.name for i in chosen]
    for one, case in zip(examples, chosen, strict=True):
        assert one.volumes.dtype == np.float32
        np.testing.assert_array_equal(one.volumes[0], prepared.volumes[case])


def test_bytes_are_half_as_large_and_nearly_the_same(three):
    dataset, cache = three
    halves, kept = prepare(dataset, 16, 1.5, cache=cache), list(cache.glob("*.grid"))
    coarse = prepare(dataset, 16, 1.5, cache=cache, dtype="uint8")
    (other,) = {path.stat().st_size for path in set(cache.glob("*.grid")) - set(kept)}
    assert other < 0.6 * kept[0].stat().st_size
    assert coarse.volumes.dtype == np.float32
    np.testing.assert_allclose(coarse.volumes, halves.volumes, atol=0.5 / 255 + 5e-4)
    assert np.abs(np.asarray(coarse.volumes) - np.asarray(halves.volumes)).max() > 5e-4


def test_processes_begin_at_different_cases_and_end_with_the_same(three, monkeypatch):
    dataset, cache = three
    order, whole = [], cases.read_volume

    def read(path, **options):
        order.append(path.name)
        return whole(path, **options)

    monkeypatch.setattr(cases, "read_volume", read)
    monkeypatch.setattr(cases.memory, "count_cores", lambda: 1)
    done = []
    found = prepare(dataset, 16, 1.5, begin=2, progress=done.append)
    assert order == ["c.nii.gz", "a.nii.gz", "b.nii.gz"] and done == [1, 2, 3]
    first = prepare(dataset, 16, 1.5, cache=cache)
    np.testing.assert_array_equal(found.volumes, first.volumes)
    assert found.cases == first.cases


def test_placed_cases_are_the_same_on_disk(blobs, tmp_path):
    place = place_anew(blobs, JITTER, ASKED)
    held, mapped = (
        place_cases(blobs, place, [3], scratch=scratch) for scratch in (None, tmp_path / "scratch")
    )
    assert isinstance(held.volumes, np.ndarray) and not isinstance(mapped.volumes, np.ndarray)
    np.testing.assert_array_equal(mapped.volumes, held.volumes)
    np.testing.assert_array_equal(mapped.points_vox, held.points_vox)


def test_files_are_mapped_each_time_they_are_sampled(blobs, tmp_path, monkeypatch):
    """They are the same without the cache, and none of them stays in memory."""
    plain = place_anew(blobs, JITTER, ASKED)(0, np.random.default_rng(0))
    open_file = bind_files(blobs, ASKED, tmp_path / "grids")
    open_file(0)
    monkeypatch.setattr(cases, "read_volume", None)
    first, second = open_file(0), open_file(0)
    assert first is not second and is_mapped(first.voxels)
    np.testing.assert_array_equal(first.sample(plain[1]), plain[0])


def jitter(source, rng):
    """24 voxels of 1.25 mm round the first landmark; in training turned and shifted."""
    degrees, shift = (0, 0, 0), np.zeros(3)
    if rng is not None:
        degrees, shift = rng.uniform(-40, 40, 3), rng.uniform(-2, 2, 3)
    affine = turn(np.diag([1.25, 1.25, 1.25, 1.0]), degrees)
    affine[:3, 3] = source.points_mm[0] + shift - affine[:3, :3] @ np.full(3, 11.5)
    return Grid((24, 24, 24), affine)


JITTER = Placement(jitter, varies=True)
ASKED = Preprocessing(24, 1.25, (0, 100))


@pytest.fixture
def blobs(tmp_path):
    """One case of blobs on the placement's own grid."""
    write_blobs(tmp_path, np.array([[2, -1], [0, 1], [1, -1]]))
    return prepare_dataset(read_dataset(tmp_path), JITTER, ASKED)


def test_a_placement_may_look_at_the_landmarks(blobs):
    """Without chance its grid is the one to evaluate on: the first landmark is in its middle."""
    np.testing.assert_allclose(blobs.points_vox[0, 0], 11.5, atol=1e-5)
    np.testing.assert_array_equal(blobs.grids[0].affine[:3, :3], 1.25 * np.eye(3))


def test_a_placement_that_varies_is_another_grid_each_time_and_the_same_for_the_same(blobs):
    place = place_anew(blobs, JITTER, ASKED)
    first, second, again = (place(0, np.random.default_rng(seed)) for seed in (0, 1, 0))
    assert np.abs(first[1].affine - second[1].affine).max() > 0.1
    np.testing.assert_array_equal(first[1].affine, again[1].affine)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[0].dtype == np.float16 and first[0].shape == (24, 24, 24)


@pytest.mark.parametrize("seed", range(4))
def test_on_a_turned_grid_each_landmark_lies_on_its_blob(blobs, seed):
    """The volume as it was sampled, against the formula of the place in mm."""
    volume, grid = place_anew(blobs, JITTER, ASKED)(0, np.random.default_rng(seed))
    points = grid.to_voxels(blobs.points_mm[0])
    assert ((points >= 0) & (points <= 23)).all()

    def look(at_vox):
        return ndimage.map_coordinates(volume.astype(float), at_vox.T, order=1)

    drawn = draw_blobs()
    truth = np.zeros(3)
    for height, place_mm in zip((1.0, 0.8, 0.5), POINTS.values(), strict=True):
        squared = ((blobs.points_mm[0] - np.array(place_mm)) ** 2).sum(axis=-1)
        truth += height * np.exp(-squared / (2 * 3.0**2))
    truth = (1000 * truth - drawn.min()) / (drawn.max() - drawn.min())
    # interpolated twice, a blob with σ 3 mm loses up to Σ h²/(8 σ²) at its peak
    np.testing.assert_allclose(look(points), truth, atol=0.14)
    assert np.abs(look(blobs.points_vox[0]) - truth).max() > 0.2  # where they are without chance


@pytest.mark.parametrize(("limit", "reads"), [(2**30, 1), (0, 3)])
def test_a_file_is_read_once_where_memory_allows(blobs, limit, reads, monkeypatch):
    counted, read_voxels = [], cases.read_voxels

    def count(*args):
        counted.append(args)
        return read_voxels(*args)

    monkeypatch.setattr(cases, "read_voxels", count)
    monkeypatch.setattr(cases, "KEPT_BYTES", limit)
    place = place_anew(blobs, JITTER, ASKED)
    volumes = [place(0, np.random.default_rng(seed))[0] for seed in range(3)]
    assert len(counted) == reads and np.ptp([v.mean() for v in volumes]) > 0


def test_a_volume_of_which_nothing_is_left_on_the_grid_is_named(tmp_path):
    """A header in metres: the whole of it lies between two voxels of the grid."""
    voxels = np.random.default_rng(0).integers(0, 255, (10, 20, 10), dtype=np.uint8)
    affine = np.diag([0.001, 0.001, 0.001, 1.0])
    write_nifti(tmp_path / "volumes" / "a.nii.gz", voxels, affine)
    write_landmarks(tmp_path / "landmarks" / "a.mrk.json", {"p": np.full(3, 0.005)})
    with pytest.raises(InputError) as caught:
        prepare(read_dataset(tmp_path), 16, 1.5)
    (line,) = caught.value.problems
    assert line == (
        f"{tmp_path}/volumes/a.nii.gz: expected voxels that differ on the grid, at 1.5 mm, got one "
        "value: its header says 0.01 × 0.02 × 0.01 mm"
    )
