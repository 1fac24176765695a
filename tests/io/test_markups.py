"""Landmark files of both formats: what is written is read again, and other files are refused."""

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks, write_landmarks, write_mrk_json

POINTS = {
    "nasion": np.array([1 / 3, -12.5, 1e-7]),
    "exocanthion left": np.array([-31.123456789012345, 0.0, 987.654321]),
    'quoted "x", y': np.array([1.0, 2.0, 3.0]),
    "été": np.array([-1.0, 2.0, -3.0]),
}


@pytest.mark.parametrize("system", ["LPS", "RAS"])
@pytest.mark.parametrize("suffix", [".mrk.json", ".fcsv"])
def test_round_trip_keeps_labels_order_and_every_digit(tmp_path, suffix, system):
    path = tmp_path / f"case{suffix}"
    write_landmarks(path, POINTS, {"nasion": "p=0.9"}, coordinate_system=system)
    found = read_landmarks(path)
    assert list(found) == list(POINTS)
    for label, position in POINTS.items():
        assert found[label].dtype == np.float64
        np.testing.assert_array_equal(found[label], position)


@pytest.mark.parametrize("suffix", [".mrk.json", ".fcsv"])
def test_the_same_points_give_the_same_bytes_and_no_other_file(tmp_path, suffix):
    first, second = tmp_path / f"1{suffix}", tmp_path / f"2{suffix}"
    write_landmarks(first, POINTS)
    write_landmarks(second, {label: list(position) for label, position in POINTS.items()})
    assert first.read_bytes() == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_undefined_survives_the_round_trip(tmp_path):
    path = tmp_path / "case.mrk.json"
    write_mrk_json(path, {"a": np.ones(3), "b": np.full(3, np.nan)})
    found = read_landmarks(path)
    assert list(found) == ["a", "b"]
    assert np.isnan(found["b"]).all()


def check_refusal(path, expected, came):
    with pytest.raises(InputError) as caught:
        read_landmarks(path)
    (message,) = caught.value.problems
    assert message.startswith(f"{path}: expected ")
    assert "\n" not in message and len(message) < 500
    before, got, after = message.partition(", got ")
    assert expected in before
    assert came in got + after


def test_files_that_are_none(tmp_path):
    check_refusal(tmp_path / "no.mrk.json", "a landmark file", "no such file")
    check_refusal(tmp_path / "points.csv", ".mrk.json or .fcsv", "points.csv")
    (tmp_path / "folder.fcsv").mkdir()
    check_refusal(tmp_path / "folder.fcsv", "readable", "directory")
    (tmp_path / "latin.fcsv").write_bytes(b"\xe9\xff")
    check_refusal(tmp_path / "latin.fcsv", "UTF-8", "other bytes")


def test_an_unknown_system_asked_for(tmp_path):
    write_landmarks(tmp_path / "case.fcsv", POINTS)
    with pytest.raises(InputError, match="expected LPS or RAS, got 'IJK'"):
        read_landmarks(tmp_path / "case.fcsv", coordinate_system="IJK")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        pytest.param({"a": np.ones(2)}, r"expected \[3\] for 'a', got \(2,\)", id="two numbers"),
        pytest.param({"a": [np.nan, 1, 2]}, "finite numbers or all NaN", id="one NaN"),
        pytest.param({"a": [np.inf, 1, 2]}, "finite numbers or all NaN", id="infinite"),
        pytest.param({"a\nb": np.ones(3)}, "label on one line", id="line break"),
        pytest.param({" a": np.ones(3)}, "label on one line", id="space before"),
        pytest.param({"": np.ones(3)}, "label on one line", id="no label"),
    ],
)
@pytest.mark.parametrize("suffix", [".mrk.json", ".fcsv"])
def test_writing_refuses_what_could_not_be_read(tmp_path, suffix, points, message):
    with pytest.raises(ValueError, match=message):
        write_landmarks(tmp_path / f"case{suffix}", points)
    assert not list(tmp_path.iterdir())


def test_writing_refuses_a_wrong_name_and_a_wrong_system(tmp_path):
    with pytest.raises(ValueError, match="ends in .mrk.json or .fcsv, got"):
        write_landmarks(tmp_path / "case.json", POINTS)
    with pytest.raises(ValueError, match="'LPS' or 'RAS', got 'XYZ'"):
        write_landmarks(tmp_path / "case.fcsv", POINTS, coordinate_system="XYZ")


def test_the_origin_is_a_point(tmp_path):
    write_mrk_json(tmp_path / "case.mrk.json", {"a": np.zeros(3)})
    np.testing.assert_array_equal(read_landmarks(tmp_path / "case.mrk.json")["a"], 0)


def test_axes_of_the_file_are_turned_once(tmp_path):
    write_landmarks(tmp_path / "case.mrk.json", {"a": np.array([1.0, -2.0, 3.0])})
    assert '"position": [-1.0, 2.0, 3.0]' in (tmp_path / "case.mrk.json").read_text()
