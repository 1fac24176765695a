"""Files known by content: read once, changes named."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fetal_jax.data import file_digests
from fetal_jax.data.case_table import Case, Readings
from fetal_jax.data.file_digests import digest_cases, digest_file, find_changes
from fetal_jax.errors import InputError
from fetal_jax.io.markups import write_landmarks
from fetal_jax.io.volumes import write_nifti

LONG_AGO = 10**18


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    """Each test begins as a new process does."""
    begin_anew(monkeypatch)


def begin_anew(monkeypatch):
    monkeypatch.setattr(file_digests, "_seen", {})
    file_digests._recall.cache_clear()


@pytest.fixture
def read(monkeypatch):
    """Names of the files whose bytes are read for a digest."""
    names, whole = [], file_digests.hashlib.file_digest

    def note(file, kind):
        names.append(Path(file.name).name)
        return whole(file, kind)

    monkeypatch.setattr(file_digests.hashlib, "file_digest", note)
    return names


@pytest.fixture
def cases(tmp_path):
    """a, b and c; c has the volume of a."""
    for i, name in enumerate("abc"):
        path = tmp_path / f"{name}.nii.gz"
        write_nifti(path, np.full((2, 2, 2), i % 2, np.uint8), np.eye(4))
        write_landmarks(tmp_path / f"{name}.mrk.json", {"p": np.full(3, float(i))})
    return [
        Case(name, tmp_path / f"{name}.nii.gz", tmp_path / f"{name}.mrk.json", f"s{name}")
        for name in "abc"
    ]


def test_what_changed_is_named(cases, tmp_path):
    before = digest_cases(cases, None)
    assert find_changes(before, digest_cases(cases, None)) == []
    write_landmarks(cases[1].landmarks_path, {"p": np.full(3, 9.0)})
    assert find_changes(before, digest_cases(cases, None)) == ["landmarks of b"]
    other = [replace(cases[0], visible=frozenset()), *cases[1:]]
    assert find_changes(before, digest_cases(other, None))[0] == "landmarks of a"
    reading = tmp_path / "c.ann.mrk.json"
    write_landmarks(reading, {"p": np.zeros(3)})
    other = [*cases[:2], replace(cases[2], readings=(Readings("ann", (reading,)),))]
    assert find_changes(before, digest_cases(other, None)) == ["landmarks of b", "landmarks of c"]
    write_nifti(cases[0].volume_path, np.zeros((2, 2, 3), np.uint8), np.eye(4))
    assert find_changes(before, digest_cases(cases, None))[0] == "volume of a"
    assert find_changes(before, digest_cases(cases[1:2], None)) == ["landmarks of b"]


def test_a_file_is_read_once_and_again_when_it_changed(cases, tmp_path, monkeypatch, read):
    for path in tmp_path.iterdir():
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    cache = tmp_path / "cache"
    first = digest_cases(cases, cache)
    assert len(read) == 6
    for _ in range(2):  # in this process, and in a later one
        assert digest_cases(cases, cache) == first and len(read) == 6
        begin_anew(monkeypatch)
    path = cases[1].volume_path
    os.utime(path, ns=(1, 1))
    assert digest_cases(cases, cache) == first and read[6:] == ["b.nii.gz"]
    begin_anew(monkeypatch)
    (cache / "file-digests.json").write_text("[1")
    assert digest_cases(cases, cache) == first and len(read) == 13


def test_what_one_process_found_does_not_displace_what_another_did(cases, tmp_path, monkeypatch):
    for path in tmp_path.iterdir():
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    for some in (cases[:1], cases[1:]):
        digest_cases(some, tmp_path / "cache")
        begin_anew(monkeypatch)
    kept = json.loads((tmp_path / "cache" / "file-digests.json").read_bytes())
    assert len(kept) == 6


def test_a_file_that_has_just_changed_is_not_remembered(cases, read):
    """A second change within the same tick of a coarse clock would not show."""
    path = cases[0].volume_path
    for content in (b"one", b"two"):
        path.write_bytes(content)
        os.utime(path)
        digest_file(path, None)
    assert read == ["a.nii.gz"] * 2
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    first = digest_file(path, None)
    assert digest_file(path, None) == first and len(read) == 3


def test_the_voxels_beside_a_header_count(tmp_path):
    (tmp_path / "a.mhd").write_text("NDims = 3\nElementDataFile = a.raw\n")
    (tmp_path / "a.raw").write_bytes(b"12345678")
    write_landmarks(tmp_path / "a.mrk.json", {"p": np.zeros(3)})
    case = Case("a", tmp_path / "a.mhd", tmp_path / "a.mrk.json", "s")
    before = digest_cases([case], None)
    (tmp_path / "a.raw").write_bytes(b"12345679")
    assert find_changes(before, digest_cases([case], None)) == ["volume of a"]


def test_a_file_that_is_gone_is_one_line(cases):
    cases[0].landmarks_path.unlink()
    with pytest.raises(InputError, match="a.mrk.json: expected a readable file, got No such file"):
        digest_cases(cases, None)
