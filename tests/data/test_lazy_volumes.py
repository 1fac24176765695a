"""Volumes that are fetched one by one: as an array, and nothing is fetched that nobody looks at."""

from functools import partial

import numpy as np
import pytest

from fetal_jax.data import lazy_volumes
from fetal_jax.data.lazy_volumes import (
    Volumes,
    decode,
    decoded_dtype,
    encode,
    join_volumes,
    list_volumes,
    thin_out,
    write_scratch,
)
from fetal_jax.io.mapped_arrays import is_mapped

ARRAY = np.random.default_rng(0).random((6, 4, 5, 3)).astype(np.float16)


@pytest.fixture
def counted():
    """The array as `Volumes`, and which of them have been fetched."""
    fetched = []

    def fetch(i):
        fetched.append(i)
        return ARRAY[i]

    return Volumes([partial(fetch, i) for i in range(6)], ARRAY.shape[1:]), fetched


@pytest.mark.parametrize(
    "index",
    [[2, 0, 2], slice(1, 6, 2), np.array([5]), np.arange(6) > 3, [], slice(None)],
)
def test_what_is_chosen_is_fetched_when_it_becomes_an_array(counted, index):
    volumes, fetched = counted
    chosen = volumes[index]
    assert not fetched and chosen.shape == ARRAY[index].shape and len(chosen) == chosen.shape[0]
    np.testing.assert_array_equal(chosen, ARRAY[index])
    assert fetched == list(dict.fromkeys(np.arange(6)[index]))  # a copy is fetched once


def test_one_is_fetched_alone(counted):
    volumes, fetched = counted
    np.testing.assert_array_equal(volumes[np.int64(-2)], ARRAY[-2])
    assert fetched == [4]
    with pytest.raises(IndexError):
        volumes[6]
    assert len(list(volumes)) == 6


def test_another_type(counted):
    volumes, fetched = counted
    wider = volumes.astype(np.float32)
    assert not fetched and wider.dtype == np.float32 and volumes.dtype == np.float16
    assert wider[1].dtype == np.asarray(wider).dtype == np.float32
    np.testing.assert_array_equal(wider, ARRAY)
    assert np.asarray(volumes, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="expected to copy"):
        np.array(volumes, copy=False)


def test_join(counted):
    volumes, fetched = counted
    joined = join_volumes([volumes[[3]], ARRAY[:2], volumes[[0]]])
    assert not fetched
    np.testing.assert_array_equal(joined, ARRAY[[3, 0, 1, 0]])
    assert isinstance(join_volumes([ARRAY, ARRAY[:1]]), np.ndarray)


def test_thin_volumes_are_known_without_a_look(counted):
    wide = np.random.default_rng(1).random((3, 16, 16, 16))
    thin = list_volumes(wide).thin_out()
    np.testing.assert_array_equal(thin, wide[:, ::2, ::2, ::2])
    volumes = Volumes([None] * 3, wide.shape[1:], thin=thin)  # which cannot be fetched
    np.testing.assert_array_equal(volumes[[2, 0]].thin_out(), thin[[2, 0]])
    assert thin_out(np.zeros((9, 9, 9))).shape == (9, 9, 9)


def test_bytes_are_near_and_half_as_large():
    voxels = np.random.default_rng(2).random((8, 8, 8)).astype(np.float32)
    voxels[0, 0, :2] = 0, 1
    kept = encode(voxels, "uint8")
    assert kept.dtype == np.uint8
    assert decode(kept).dtype == decoded_dtype("uint8") == np.float32
    assert np.abs(decode(kept) - voxels).max() <= 0.5 / 255 + 1e-6
    assert decode(kept)[0, 0, :2].tolist() == [0, 1]
    kept = encode(voxels, "float16")
    assert decode(kept) is kept and decoded_dtype("float16") == kept.dtype == np.float16
    np.testing.assert_array_equal(kept, voxels.astype(np.float16))


def test_scratch_is_a_file_without_a_name(tmp_path):
    volumes = write_scratch(iter(ARRAY), 6, tmp_path / "grids")
    np.testing.assert_array_equal(volumes, ARRAY)
    assert list((tmp_path / "grids").iterdir()) == []
    mapped = volumes[0].base
    assert is_mapped(mapped)


def test_without_room_scratch_stays_in_memory(tmp_path, capsys, monkeypatch):
    np.testing.assert_array_equal(write_scratch(iter(ARRAY), 6, None), ARRAY)
    assert not capsys.readouterr().out
    (tmp_path / "file").write_text("")
    np.testing.assert_array_equal(write_scratch(iter(ARRAY), 6, tmp_path / "file"), ARRAY)
    assert "GiB of grids stay in memory" in capsys.readouterr().out
    usage = type("Usage", (), {"free": ARRAY.nbytes})
    monkeypatch.setattr(lazy_volumes.shutil, "disk_usage", lambda _: usage)
    np.testing.assert_array_equal(write_scratch(iter(ARRAY), 6, tmp_path), ARRAY)
    assert "a full disk" in capsys.readouterr().out
