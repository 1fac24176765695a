"""Kept grids: the same arrays without the work, and never those of something else."""

import os
import threading

import numpy as np
import pytest

from fetal_jax.data import grid_cache
from fetal_jax.data.preprocess import Preprocessing
from fetal_jax.errors import InputError
from fetal_jax.io.mapped_arrays import is_mapped

MADE_BY = Preprocessing(8, 2.0, (0.5, 99.5))


class Maker:
    """Makes random arrays, other ones each time, and counts."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        voxels = np.random.default_rng(self.calls).random((8, 8, 8)).astype(np.float16)
        return {"voxels": voxels, "affine": np.eye(4)}


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "c.nii.gz"
    path.write_bytes(b"some voxels")
    return path


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "grids"


def fetch(folder, volume, make, made_by=MADE_BY):
    return grid_cache.fetch(folder, volume, made_by, make)


def flip(path, at):
    """Another byte at a place of a file, as a disk may do it."""
    content = bytearray(path.read_bytes())
    content[at] ^= 16
    path.write_bytes(content)


def test_a_second_time_is_read(folder, volume):
    make = Maker()
    first, second = fetch(folder, volume, make), fetch(folder, volume, make)
    assert make.calls == 1 and first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype
        assert is_mapped(array) and is_mapped(second[name])
        np.testing.assert_array_equal(array, second[name])


def test_a_copy_of_the_file_under_another_name_is_the_same(folder, volume):
    make = Maker()
    fetch(folder, volume, make)
    other = volume.with_name("d.nii.gz")
    other.write_bytes(volume.read_bytes())
    fetch(folder, other, make)
    assert make.calls == 1


def test_other_voxels_or_settings_are_made_anew(folder, volume, monkeypatch):
    make = Maker()
    fetch(folder, volume, make)
    fetch(folder, volume, make, Preprocessing(8, 2.0, (1.0, 99.0)))
    assert make.calls == 2
    monkeypatch.setattr(grid_cache, "_hash_sources", lambda: b"another program")
    fetch(folder, volume, make)
    assert make.calls == 3
    volume.write_bytes(b"other voxels")
    fetch(folder, volume, make)
    assert make.calls == 4


@pytest.mark.parametrize("left", [0, 10, 400])
def test_a_file_that_is_not_whole_is_made_anew(folder, volume, left):
    make = Maker()
    fetch(folder, volume, make)
    (kept,) = folder.iterdir()
    os.truncate(kept, left)
    fetch(folder, volume, make)
    assert make.calls == 2
    fetch(folder, volume, make)
    assert make.calls == 2


def test_damaged_voxels_are_made_anew(folder, volume):
    make = Maker()
    first = {name: array.copy() for name, array in fetch(folder, volume, make).items()}
    (kept,) = folder.iterdir()
    flip(kept, kept.stat().st_size - 200)
    make.calls = 0  # it makes what it made before
    again = fetch(folder, volume, make)
    assert make.calls == 1
    np.testing.assert_array_equal(again["voxels"], first["voxels"])


def test_what_is_kept_is_not_read_until_it_is_opened(folder, volume):
    """Neither voxels nor their damage; what was asked for at once is in memory, and checked."""
    make = Maker()
    fetch(folder, volume, make)
    (path,) = folder.iterdir()
    flip(path, path.stat().st_size - 100)  # of the affine
    kept = grid_cache.keep(folder, volume, MADE_BY, make, small=["voxels"])
    assert make.calls == 1 and not is_mapped(kept.small["voxels"])
    kept.open()
    assert make.calls == 2
    flip(path, path.stat().st_size - 100)
    grid_cache.keep(folder, volume, MADE_BY, make, small=["affine"])
    assert make.calls == 3


def test_a_grid_that_goes_is_made_again_while_its_file_is_what_it_was(folder, volume):
    make = Maker()
    kept = grid_cache.keep(folder, volume, MADE_BY, make)
    (path,) = folder.iterdir()
    path.unlink()
    make.calls = 0
    np.testing.assert_array_equal(kept.open()["affine"], np.eye(4))
    assert make.calls == 1 and path.exists()
    path.unlink()
    volume.write_bytes(b"another scan")
    with pytest.raises(InputError, match="expected the file that this run began with, got another"):
        kept.open()
    volume.unlink()
    with pytest.raises(InputError, match="c.nii.gz: expected a volume, got No such file"):
        kept.open()
    assert make.calls == 1


def test_without_a_folder_nothing_is_kept(tmp_path, volume):
    make = Maker()
    for _ in range(2):
        fetch(None, volume, make)
    assert make.calls == 2 and list(tmp_path.iterdir()) == [volume]


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path, volume, capsys):
    (tmp_path / "grids").write_text("a file where the folder should be")
    make = Maker()
    kept = grid_cache.keep(tmp_path / "grids", volume, MADE_BY, make)
    assert kept.open()["voxels"].shape == kept.open()["voxels"].shape == (8, 8, 8)
    assert make.calls == 1  # it stays in memory, and that is said
    assert "grids: grids cannot be kept" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["c.mhd", "c.mha"])
def test_voxels_in_a_second_file_count(folder, volume, name):
    """Whatever the ending: the header says where they are."""
    header, voxels = volume.with_name(name), volume.with_name("c.raw")
    header.write_text("ElementDataFile = c.raw")
    make = Maker()
    for number, content in enumerate((b"some", b"more"), start=1):
        voxels.write_bytes(content)
        for _ in range(2):
            fetch(folder, header, make)
        assert make.calls == number


def test_a_missing_file_is_the_maker_s_to_name(folder, volume):
    def make():
        raise ValueError("no such volume")

    volume.unlink()
    with pytest.raises(ValueError, match="no such volume"):
        fetch(folder, volume, make)


def test_two_runs_at_once(folder, volume):
    """All of them read what one of them wrote whole, or make their own."""
    found, make = [], lambda: {"voxels": np.arange(100_000)}
    threads = [
        threading.Thread(target=lambda: found.append(fetch(folder, volume, make))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for arrays in found:
        np.testing.assert_array_equal(arrays["voxels"], np.arange(100_000))
    assert len(list(folder.iterdir())) == 1
