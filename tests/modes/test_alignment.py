"""Scans turned and shifted: what is found moves with what is seen, and nothing else does."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from noise_runs import read_results

from fetal_jax import geometry
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.errors import InputError
from fetal_jax.io.volumes import write_nifti
from fetal_jax.modes import alignment
from fetal_jax.runs.alignment import KINDS
from fetal_jax.runs.folder import read_json
from fetal_jax.runs.search import Searched


@pytest.fixture
def blobs(make_prepared, tmp_path):
    """Two scans at 1 mm with one soft bright ball, where the landmark is; stored in any order."""
    affine = np.array([[0, -1.0, 0, 20], [0, 0, 1.0, -20], [-1.0, 0, 0, 20], [0, 0, 0, 1]])
    points = np.array([[[5.0, -3, 4]], [[-6.0, 2, 1]]])
    index = np.stack(np.meshgrid(*[np.arange(41)] * 3, indexing="ij"), axis=-1)
    grid = geometry.align_grid((32,) * 3, 1.5, np.full(3, -23.25))
    cases = make_prepared(grid.to_voxels(points), subjects=["a", "b"])
    paths = [tmp_path / f"{i}.nii.gz" for i in range(2)]
    for path, point in zip(paths, points, strict=True):
        away = np.linalg.norm(geometry.apply_affine(affine, index) - point[0], axis=-1)
        write_nifti(path, np.rint(250 * np.exp(-((away / 4) ** 2))).astype(np.uint8), affine)
    named = [replace(c, volume_path=p) for c, p in zip(cases.cases, paths, strict=True)]
    return replace(cases, cases=tuple(named), grids=(grid, grid), points_mm=points)


def search_by(find):
    """A search that looks once, by a function of volumes that gives voxels [K, 1, 3]."""

    def search(volumes, grids, sample):
        points = [g.to_world(p) for g, p in zip(grids, find(volumes), strict=True)]
        points_mm = np.stack(points)
        once = np.zeros(len(volumes), bool)
        return Searched(points_mm, np.ones((len(volumes), 1)), once, points_mm[..., 0], points_mm)

    return search


def find_middle(volumes):
    """The bright ball's centre of mass, in voxels."""
    index = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), axis=-1)
    weights = volumes.astype(np.float64) ** 2
    total = weights.sum(axis=(1, 2, 3))
    return (np.einsum("kxyz,xyzc->kc", weights, index) / total[:, None])[:, None]


def test_what_is_seen_moves_as_the_truth_does(blobs):
    preprocessing = Preprocessing(32, 1.5, (0.5, 100.0))
    moved = alignment.measure_moved(blobs, preprocessing, search_by(find_middle), seed=0)
    assert moved["turned"].error_mm.shape == (len(KINDS["turned"][1]), 2, 1)
    near = [one.error_mm[one.inside] for one in moved.values()]
    assert max(errors.max() for errors in near) < 0.1


def test_a_finder_that_stands_still_loses_what_was_moved(blobs):
    """The face has one landmark, its own middle: turns leave it there, shifts are the error."""
    preprocessing = Preprocessing(32, 1.5, (0.5, 100.0))
    at_rest = iter(blobs.grids[i].to_voxels(blobs.points_mm[i]) for i in range(2))

    def stand_still(volumes):
        return np.broadcast_to(next(at_rest), (len(volumes), 1, 3))

    moved = alignment.measure_moved(blobs, preprocessing, search_by(stand_still), seed=0)
    np.testing.assert_allclose(moved["turned"].error_mm, 0.0, atol=1e-6)
    expected = np.array(KINDS["shifted"][1], float)[:, None, None] * np.ones((1, 2, 1))
    np.testing.assert_allclose(moved["shifted"].error_mm, expected, atol=1e-6)


def test_a_cross_validation_has_all_its_test_cases(noise_crossval, tmp_path):
    run = Path(shutil.copytree(noise_crossval, tmp_path / "cross"))
    alignment.run_alignment(run)
    numbers = read_json(run / "alignment.json")
    pooled = read_results(run)["pooled"]
    for rows in numbers.values():
        assert rows[0]["n"] == pooled["landmarks"]
        assert rows[0]["d_mean_mm"] == pytest.approx(pooled["d_mean_mm"], abs=0.02)
        assert rows[0]["ratio_ci"] == [1.0, 1.0]


def test_a_run_that_is_not_finished(tmp_path):
    with pytest.raises(InputError, match="expected a finished run"):
        alignment.run_alignment(tmp_path)
