"""Slicer's `.fcsv`: the forms that it has had are read, and what cannot be trusted is refused."""

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks, write_fcsv

COLUMNS = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
HEADER = "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n" + COLUMNS


def save(folder, text):
    path = folder / "case.fcsv"
    path.write_text(text, "utf-8")
    return path


def row(x="1", y="2", z="3", label="nasion", rest=",,"):
    return f"vtkMRMLMarkupsFiducialNode_0,{x},{y},{z},0,0,0,1,1,1,0,{label}{rest}\n"


def test_written_fcsv_names_its_system_and_leaves_out_the_undefined(tmp_path):
    path = tmp_path / "case.fcsv"
    points = {"a, b": np.array([1.0, -2.0, 3.0]), "u": np.full(3, np.nan)}
    write_fcsv(path, points, descriptions={"a, b": 'two\nlines, "quoted"'})
    lines = path.read_text().splitlines()
    assert "\n".join(lines[:3]) + "\n" == HEADER
    assert lines[3:] == ['1,-1.0,2.0,3.0,0,0,0,1,1,1,0,"a, b","two lines, ""quoted""",']


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("LPS", [-1, -2, 3]),
        ("lps", [-1, -2, 3]),
        ("1", [-1, -2, 3]),
        ("RAS", [1, 2, 3]),
        ("0", [1, 2, 3]),
    ],
)
def test_fcsv_system_is_a_word_or_a_number(tmp_path, word, expected):
    path = save(tmp_path, HEADER.replace("LPS", word) + row())
    other = "RAS" if expected[0] < 0 else "LPS"
    for asked in (None, other):  # what the file says comes first
        found = read_landmarks(path, coordinate_system=asked)
        np.testing.assert_array_equal(found["nasion"], expected)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        pytest.param(HEADER + row(label="F-1"), "F-1", id="Slicer 4.11"),
        pytest.param(HEADER + row(label="F-1", rest=""), "F-1", id="last fields left out"),
        pytest.param((HEADER + row(label="F-1")).replace("\n", "\r\n"), "F-1", id="CRLF"),
        pytest.param(HEADER + "\n" + row(label='"a ""b"", c"'), 'a "b", c', id="quoted"),
        pytest.param(HEADER.replace(COLUMNS, "") + row(label="F-1"), "F-1", id="no columns line"),
        pytest.param("# name = F\n# CoordinateSystem = LPS\nF-1,1,2,3,1,1\n", "F-1", id="Slicer 3"),
        pytest.param(
            "# CoordinateSystem = LPS\n# columns = label,x,y,z,sel,vis\nF-1,1,2,3,1,1",
            "F-1",
            id="Slicer 3 with columns",
        ),
    ],
)
def test_fcsv_in_its_real_forms(tmp_path, text, label):
    found = read_landmarks(save(tmp_path, text))
    assert list(found) == [label]
    np.testing.assert_array_equal(found[label], [-1, -2, 3])


@pytest.mark.parametrize(("system", "expected"), [("LPS", [-1, -2, 3]), ("RAS", [1, 2, 3])])
def test_fcsv_without_a_system_is_read_as_the_caller_says(tmp_path, system, expected):
    path = save(tmp_path, COLUMNS + row())
    found = read_landmarks(path, coordinate_system=system)
    np.testing.assert_array_equal(found["nasion"], expected)


BAD_FCSV = {
    "no system": (COLUMNS + row(), "# CoordinateSystem = LPS", "got none"),
    "system 2": (HEADER.replace("LPS", "2") + row(), "LPS, RAS, 0 or 1", "got '2'"),
    "system IJK": (HEADER.replace("LPS", "IJK") + row(), "LPS, RAS, 0 or 1", "got 'IJK'"),
    "two systems": (
        HEADER + "# CoordinateSystem = RAS\n" + row(),
        "one CoordinateSystem",
        "LPS and RAS",
    ),
    "no points": (HEADER, "at least one point", "an empty list"),
    "label twice": (HEADER + row() + row(x="9"), "each label once", "label 'nasion'"),
    "label empty": (HEADER + row(label=" "), "a label for line 4", "got ' '"),
    "cut short": (HEADER + row()[:40], "a label for line 4", "got None"),
    "open quote": (HEADER + row(label='"nas', rest=""), "fields in line 4", "unexpected end"),
    "not a number": (HEADER + row(y="two"), "three finite numbers", "'1,two,3'"),
    "NaN": (HEADER + row(y="nan"), "three finite numbers", "'1,nan,3'"),
    "digits with underscores": (HEADER + row(y="1_0"), "three finite numbers", "'1,1_0,3'"),
    "decimal commas": (HEADER + row(x="1,5", y="2,5"), "14 fields in line 4", "got 16"),
    "unplaced": (HEADER + row("0", "0.000", "-0"), "delete its row", "got 0,0,0"),
    "other columns": (
        HEADER.replace("label,", "name,") + row(),
        "columns label, x, y and z",
        "id,x,y,z",
    ),
}


def check_refusal(path, expected, came):
    with pytest.raises(InputError) as caught:
        read_landmarks(path)
    (message,) = caught.value.problems
    assert message.startswith(f"{path}: expected ")
    assert "\n" not in message and len(message) < 500
    before, got, after = message.partition(", got ")
    assert expected in before
    assert came in got + after


@pytest.mark.parametrize(
    ("content", "expected", "came"),
    [pytest.param(*values, id=name) for name, values in BAD_FCSV.items()],
)
def test_fcsv_that_cannot_be_trusted(tmp_path, content, expected, came):
    check_refusal(save(tmp_path, content), expected, came)


def test_a_point_at_the_origin_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="'a' lies at 0,0,0, .* use .mrk.json"):
        write_fcsv(tmp_path / "case.fcsv", {"a": np.zeros(3)})
    assert not list(tmp_path.iterdir())
