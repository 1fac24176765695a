"""New scans are read ahead: as one at a time, in order, and few of them at once."""

import gc
import math
import time
import weakref

import numpy as np
import pytest
from volumes import AFFINE, SHAPE

from fetal_jax.data import memory
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.errors import InputError
from fetal_jax.io.volumes import write_nifti
from fetal_jax.runs import new_scans
from fetal_jax.runs.new_scans import IN_MEMORY, read_scans

ASKED = Preprocessing(8, 2.0, (0.5, 99.5))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Twelve scans; the fourth is cut off, the fifth has no contrast, the sixth is none."""
    folder = tmp_path_factory.mktemp("scans")
    found = [folder / f"scan{i:02}.nii.gz" for i in range(12)]
    for i, path in enumerate(found):
        voxels = np.random.default_rng(i).integers(0, 250, SHAPE, dtype=np.uint8)
        write_nifti(path, voxels * (i != 4), AFFINE)
    found[3].write_bytes(found[3].read_bytes()[:500])
    found[5].write_bytes(b"no volume")
    return found


def test_a_folder_is_read_as_its_scans_one_by_one(paths):
    together = list(read_scans(paths, ASKED))
    assert len(together) == len(paths)
    for number, (path, found) in enumerate(zip(paths, together, strict=True)):
        (alone,) = read_scans([path], ASKED)
        if number in (3, 4, 5):
            assert isinstance(found, InputError)
            assert found.problems == alone.problems
            assert len(found.problems) == 1 and found.problems[0].startswith(f"{path}: expected ")
            continue
        assert found.path == alone.path == path
        np.testing.assert_array_equal(found.file.voxels, alone.file.voxels)
        np.testing.assert_array_equal(found.voxels, alone.voxels)
        np.testing.assert_array_equal(found.grid.affine, alone.grid.affine)


@pytest.fixture
def alive(monkeypatch):
    """The numbers of scans whose voxels were there, each time that one had been read."""
    there, counts, read = weakref.WeakValueDictionary(), [], new_scans.read_voxels

    def read_voxels(path, preprocessing):
        file = read(path, preprocessing)
        there[path] = file.voxels
        counts.append(len(there))
        return file

    monkeypatch.setattr(new_scans, "read_voxels", read_voxels)
    return counts


def wait_until(met):
    """Until the threads have done all that they may, and a little longer."""
    deadline = time.monotonic() + 10
    while not met() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.003)


@pytest.mark.parametrize("fitting", [IN_MEMORY, 2, 1])
def test_few_scans_are_in_memory_at_once(paths, alive, monkeypatch, fitting):
    """As many as fit, one of which the caller has; one is read however large it is."""
    size = memory.VOXEL_BYTES * math.prod(SHAPE)
    bound = {IN_MEMORY: 100 * size, 2: 2 * size, 1: size // 2}[fitting]
    monkeypatch.setattr(memory, "READING_BYTES", bound)
    gc.disable()  # what is kept by nobody goes at once
    try:
        taken = 0
        for scan in read_scans(paths[6:], ASKED):  # enumerate would keep a scan
            wait_until(lambda: len(alive) >= min(6, taken + fitting))  # noqa: B023
            taken += 1
            del scan
    finally:
        gc.enable()
    assert len(alive) == 6 and max(alive) == fitting
