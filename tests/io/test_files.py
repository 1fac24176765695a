"""Names of files, and files that are written whole or not at all."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.files import (
    LANDMARK_SUFFIXES,
    VOLUME_SUFFIXES,
    mismatch,
    split_suffix,
    write_atomically,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scan.nii.gz", ("scan", ".nii.gz")),
        ("folder/scan.nii", ("scan", ".nii")),
        ("scan.v1.NRRD", ("scan.v1", ".nrrd")),
        ("scan.nii.gz.txt", ("scan.nii.gz.txt", "")),
        ("scan", ("scan", "")),
        (".nii", (".nii", "")),
        (Path("a") / "b.mha", ("b", ".mha")),
    ],
)
def test_only_listed_endings_are_split_off(name, expected):
    assert split_suffix(name, VOLUME_SUFFIXES) == expected


def test_endings_are_those_of_the_kind():
    assert split_suffix("case.a1.mrk.json", LANDMARK_SUFFIXES) == ("case.a1", ".mrk.json")
    assert split_suffix("case.nii", LANDMARK_SUFFIXES) == ("case.nii", "")


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    write_atomically(tmp_path / "new" / "folder" / "file.txt", b"one")
    write_atomically(str(tmp_path / "new" / "folder" / "file.txt"), b"two")
    assert (tmp_path / "new" / "folder" / "file.txt").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["file.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_atomically(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_gone_when_the_file_is_written_again(tmp_path):
    path = tmp_path / "file.txt"
    code = (
        "import os; os.replace = lambda *paths: os.kill(os.getpid(), 9)\n"
        "from fetal_jax.io.files import write_atomically\n"
        f"write_atomically({str(path)!r}, b'a longer text than the next')"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1 and not path.exists()
    write_atomically(path, b"whole")
    assert path.read_bytes() == b"whole" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("locks", [True, False])
def test_several_writers_of_one_file_leave_one_of_theirs_whole(tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr("fetal_jax.io.files.fcntl", None)
    path = tmp_path / "file.txt"
    texts = [bytes([65 + i]) * 50_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            for done in [pool.submit(write_atomically, path, text) for text in texts]:
                done.result()
            assert path.read_bytes() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_of_a_file_is_one_short_line():
    error = mismatch("a.json", "a word", "two\nlines " + "x" * 500)
    assert isinstance(error, InputError)
    (line,) = error.problems
    assert line.startswith("a.json: expected a word, got two lines xxx")
    assert len(line) == len("a.json: expected a word, got ") + 200


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / f"{'x' * 246}.mrk.json"
    write_atomically(path, b"all")
    write_atomically(path, b"again")
    assert path.read_bytes() == b"again" and len(list(tmp_path.iterdir())) == 1
