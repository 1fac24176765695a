"""One scan as two files is found whatever they are; two scans are never taken for one."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from fetal_jax.data import placement
from fetal_jax.data.preprocess import prepare_volume
from fetal_jax.data.twins import find_twins
from fetal_jax.io.volumes import read_volume, write_nifti

SHAPE = (20, 18, 16)
AFFINE = np.diag([1.5, 1.25, 1.0, 1.0])


def make_scan(seed):
    return np.random.default_rng(seed).integers(0, 2000, SHAPE).astype(np.int16)


def write_image(path, voxels, affine):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(voxels.T)
    image.SetSpacing(np.diag(affine)[:3].tolist())
    image.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])  # LPS
    sitk.WriteImage(image, str(path), True)


def write_flipped(path, voxels, affine):
    """The same volume, its axes stored in another order."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]])), path)


def write_bytes(path, voxels, affine):
    """In 8 bits, as a viewer exports it."""
    write_nifti(path, np.round(voxels / 2000 * 255).astype(np.uint8), affine)


def write_moved(path, voxels, affine):
    """Its origin was set anew: each scan's grid is about its own middle."""
    moved = affine.copy()
    moved[:3, 3] = (100.0, -20.0, 7.0)
    write_nifti(path, voxels, moved)


def prepare(make_prepared, paths):
    prepared = make_prepared(np.ones((len(paths), 1, 3)), side=16)
    preprocessing = placement.centre_placement(side=16, spacing_mm=2.0)
    volumes = []
    for path in paths:
        volume = read_volume(path)
        source = placement.Source(volume.voxels.shape, volume.affine, np.zeros((1, 3)))
        grid = preprocessing.place(source, None)
        volumes.append(prepare_volume(volume, grid, (0.5, 99.5)).astype(np.float16))
    cases = tuple(
        replace(case, volume_path=path) for case, path in zip(prepared.cases, paths, strict=True)
    )
    return replace(prepared, volumes=np.stack(volumes), cases=cases)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        pytest.param("c.nii", write_nifti, id="unpacked"),
        pytest.param("c.nii.gz", write_nifti, id="the same bytes"),
        pytest.param("c.nrrd", write_image, id="another format"),
        pytest.param("c.nii.gz", write_flipped, id="other axes"),
        pytest.param("c.nii.gz", write_bytes, id="8 bits"),
        pytest.param("c.nii.gz", write_moved, id="another origin"),
    ],
)
def test_a_copy_is_found(make_prepared, tmp_path, name, write):
    paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", tmp_path / name]
    write_nifti(paths[0], make_scan(0), AFFINE)
    write_nifti(paths[1], make_scan(1), AFFINE)
    write(paths[2], make_scan(0), AFFINE)
    prepared = prepare(make_prepared, paths)
    assert find_twins(prepared, ["train", "test", "validation"], "split") == [
        f"expected each scan in one split, got the same as {paths[0]} in train and as {paths[2]} "
        "in validation"
    ]
    assert find_twins(prepared, ["train", "test", "train"], "split") == []
    assert find_twins(prepared, ["train", "test", None], "split") == []


def test_two_scans_are_not_one(make_prepared, tmp_path):
    """Of one child, in one pose, a moment later: other speckle, or one spot that is another."""
    paths = [tmp_path / f"{name}.nii.gz" for name in "abc"]
    scan = make_scan(0)
    spot = scan.copy()
    spot[8:11, 8:11, 7:10] = 0
    noise = np.random.default_rng(1).normal(0, 100, SHAPE)
    for path, voxels in zip(paths, (scan, spot, scan + noise), strict=True):
        write_nifti(path, voxels.astype(np.int16), AFFINE)
    assert find_twins(prepare(make_prepared, paths), ["1", "2", "3"], "fold") == []


def test_each_pair_is_named_once(make_prepared, tmp_path):
    paths = [tmp_path / f"{name}.nii.gz" for name in "abcd"]
    for path in paths:
        write_nifti(path, make_scan(0), AFFINE)
    problems = find_twins(prepare(make_prepared, paths), ["1", "1", "2", "3"], "fold")
    assert len(problems) == 5


def test_as_many_cases_as_a_cohort_has(make_prepared):
    """Their means are alike, and none is taken for another; the last is the first again."""
    prepared = make_prepared(np.ones((600, 1, 3)), side=16)
    volumes = prepared.volumes.copy()
    volumes[-1] = volumes[0]
    prepared = replace(prepared, volumes=volumes)
    (problem,) = find_twins(prepared, [str(i % 4) for i in range(599)] + ["3"], "fold")
    assert "c0.nii.gz in 0 and as c599.nii.gz in 3" in problem
