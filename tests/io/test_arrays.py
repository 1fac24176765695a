"""Arrays as they were written; what is no such file is one line."""

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.arrays import read_arrays, write_arrays


def test_there_and_back(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([True, False]), "c": np.zeros(0)}
    write_arrays(tmp_path / "x.npz", arrays)
    found = read_arrays(tmp_path / "x.npz", "some arrays")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_what_is_none_is_one_line_with_its_name(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(InputError, match="x.npz: expected some arrays, got"):
        read_arrays(path, "some arrays")
    write_arrays(path, {"a": np.random.default_rng(0).random(500)})
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[:-30], whole[:200], b"text", b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(InputError, match="x.npz: expected some arrays, got"):
            read_arrays(path, "some arrays")
