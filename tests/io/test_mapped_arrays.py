"""Mapped arrays: what was written, read only where it is looked at, and no damage goes unseen."""

import os

import numpy as np
import pytest

from fetal_jax.io.mapped_arrays import is_mapped, map_arrays, write_mappable

RNG = np.random.default_rng(0)
ARRAYS = {
    "few": RNG.random(5),
    "voxels": RNG.random((4, 6, 3)).astype(np.float16),
    "as files have them": np.asfortranarray(RNG.integers(-9, 9, (4, 6, 3)).astype(">i2")),
    "every other": RNG.integers(0, 255, (8, 8), dtype=np.uint8)[::2, 1:],
    "mask": RNG.random((3, 3)) > 0.5,
    "none": np.zeros((0, 3), np.float32),
    "one": np.array(1.5),
}


@pytest.fixture
def path(tmp_path):
    write_mappable(tmp_path / "kept", ARRAYS)
    return tmp_path / "kept"


def test_arrays_come_back_as_they_were(path):
    found = map_arrays(path, check=ARRAYS)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)
        assert is_mapped(found[name]) and not found[name].flags.writeable
        assert found[name].ctypes.data % 64 == 0
    assert found["as files have them"].flags.f_contiguous and found["voxels"].flags.c_contiguous
    assert not is_mapped(ARRAYS["voxels"])


def test_a_file_that_is_cut_or_longer_is_none(path):
    content = path.read_bytes()
    for length in (0, 1, 15, 20, 30, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError):
            map_arrays(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ValueError, match="bytes, got"):
        map_arrays(path)


def test_each_byte_that_matters_is_checked(path):
    """A byte of the header always, one of an array where that array is asked for."""
    content = path.read_bytes()
    header = content.index(ARRAYS["few"].tobytes())
    for at in range(0, header, 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(ValueError):
            map_arrays(path)
    for name in ("few", "voxels", "as files have them"):
        order = "F" if ARRAYS[name].flags.f_contiguous else "C"
        at = content.index(ARRAYS[name].tobytes(order)) + 7
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            map_arrays(path, check=[name])
        map_arrays(path, check=set(ARRAYS) - {name})


def test_a_file_that_goes_stays_until_the_last_look_and_is_then_closed(path):
    opened = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    voxels = map_arrays(path)["voxels"]
    path.unlink()
    np.testing.assert_array_equal(voxels, ARRAYS["voxels"])
    del voxels
    if opened:
        assert set(os.listdir("/proc/self/fd")) <= opened
    with pytest.raises(FileNotFoundError):
        map_arrays(path)
