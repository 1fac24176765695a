"""Any text as landmarks: what an independent reader finds, or one line that names the file."""

import json
import math
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from independent_readers import Unreadable, read_fcsv, read_mrk_json
from mutations import damage, edit_text, edit_tree

from fetal_jax.errors import InputError
from fetal_jax.io.markups import is_label, read_landmarks, write_landmarks

POINTS = {
    "enL": np.array([-12.5, 3.25, 40.0]),
    "the nose": np.array([0.5, -7.75, 1e-3]),
    "sn": np.full(3, np.nan),
}
READERS = {".mrk.json": read_mrk_json, ".fcsv": read_fcsv}


def check(path, data):
    """Read `data` as a file of that name, and compare; True if it could be read."""
    path.write_bytes(data)
    try:
        points = read_landmarks(path)
    except InputError as error:
        for line in error.problems:
            assert line.startswith(f"{path}: expected ") and len(line.splitlines()) == 1
        return False
    read = READERS[".fcsv" if path.suffix == ".fcsv" else ".mrk.json"]
    try:
        expected = read(data.decode("utf-8-sig"))
    except Unreadable:
        raise AssertionError(f"{path} was read, which is no file of this format") from None
    expected = {unicodedata.normalize("NFC", label): at for label, at in expected.items()}
    assert points.keys() == expected.keys()
    for label, position in expected.items():
        position = np.full(3, math.nan) if position is None else position
        np.testing.assert_array_equal(points[label], position)
    return True


def write_whole(folder, suffix):
    path = folder / f"whole{suffix}"
    write_landmarks(path, POINTS, {"enL": 'inner "corner", left'})
    return path.read_bytes()


@pytest.mark.parametrize("suffix", READERS)
def test_the_readers_agree_on_whole_files(tmp_path, suffix):
    assert check(tmp_path / f"case{suffix}", write_whole(tmp_path, suffix))


@given(st.data())
@pytest.mark.parametrize("suffix", READERS)
def test_damaged_files(tmp_path, suffix, data):
    whole = write_whole(tmp_path, suffix)
    check(tmp_path / f"case{suffix}", data.draw(damage(whole)))


@given(st.data())
@pytest.mark.parametrize("suffix", READERS)
def test_edited_files(tmp_path, suffix, data):
    text = data.draw(edit_text(write_whole(tmp_path, suffix).decode(), ' ,\n=:"[]#'))
    check(tmp_path / f"case{suffix}", text.encode("utf-8", "surrogatepass"))


@given(st.data())
def test_markups_with_other_values(tmp_path, data):
    content = json.loads(write_whole(tmp_path, ".mrk.json"))
    text = json.dumps(data.draw(edit_tree(content)))
    check(tmp_path / "case.mrk.json", text.encode())


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@pytest.mark.parametrize("suffix", READERS)
def test_any_bytes(tmp_path, suffix, data):
    starts = {".fcsv": b"# CoordinateSystem = LPS\n", ".mrk.json": b""}
    check(tmp_path / f"case{suffix}", starts[suffix] + data)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9).filter(is_label),
        st.none() | st.tuples(*[st.floats(-1e6, 1e6)] * 3),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["LPS", "RAS"]),
)
@pytest.mark.parametrize("suffix", READERS)
def test_what_is_written_is_read(tmp_path, suffix, points, system):
    """Labels in composed form, as they are matched."""
    points = {
        unicodedata.normalize("NFC", label): np.full(3, math.nan if at is None else at)
        if at is None
        else np.array(at)
        for label, at in points.items()
    }
    path = tmp_path / f"case{suffix}"
    write_landmarks(path, points, coordinate_system=system)
    found = read_landmarks(path)
    assert found.keys() == points.keys()
    for label, position in points.items():
        np.testing.assert_array_equal(found[label], position)
