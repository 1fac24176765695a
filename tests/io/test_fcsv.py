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


def test_written_fcsv_names_its_system(tmp_path):
    path = tmp_path / "case.fcsv"
    points = {"a, b": np.array([1.0, -2.0, 3.0])}
    write_fcsv(path, points, descriptions={"a, b": 'two\nlines, "quoted"'})
    lines = path.read_text().splitlines()
    assert "\n".join(lines[:3]) + "\n" == HEADER
    assert lines[3:] == ['1,-1.0,2.0,3.0,0,0,0,1,1,1,0,"a, b","two lines, ""quoted""",']


def test_what_is_undefined_or_at_the_origin_is_written_with_its_status(tmp_path):
    """As Slicer 5.2 and later have it: 2 is defined, 0 undefined."""
    path = tmp_path / "case.fcsv"
    points = {"a": np.zeros(3), "u": np.full(3, np.nan), "b": np.array([1.0, 2.0, 3.0])}
    write_fcsv(path, points, descriptions={"u": "expected at 1, 2, 3"})
    lines = path.read_text().splitlines()[3:]
    assert [line.split(",")[-2:] for line in lines] == [["2", "0"], ["0", "0"], ["2", "0"]]
    assert '"expected at 1, 2, 3"' in lines[1]
    found = read_landmarks(path)
    assert list(found) == list(points)
    for label, point in points.items():
        np.testing.assert_array_equal(found[label], point)


# Slicer 5.4: 16 fields a row under a header of 14 (discourse.slicer.org, topic 32318)
SLICER_5_4 = (
    HEADER.replace("4.11", "5.4")
    + "1,10.5,-20.25,3.75,0,0,0,1,1,1,0,n,,,2,0\n"
    + "2,10.5,-20.25,3.75,0,0,0,1,1,1,0,prn,,vtkMRMLScalarVolumeNode1,0,0\n"
    + "3,-7.0,8.0,9.0,0,0,0,1,1,1,0,sn,skipped,,3,0\n"
    + "4,-7.0,8.0,9.0,0,0,0,1,1,1,0,ls,,,1,0\n"
    + "5,0,0,0,0,0,0,1,1,1,0,li,,,2,1\n"
)


def test_the_status_of_slicer_5_decides_and_not_what_is_left_over(tmp_path):
    found = read_landmarks(save(tmp_path, SLICER_5_4))
    np.testing.assert_array_equal(found["n"], [-10.5, 20.25, 3.75])
    assert all(np.isnan(found[label]).all() for label in ("prn", "sn", "ls"))
    np.testing.assert_array_equal(found["li"], np.zeros(3))  # set there, so it is no unplaced one


def test_what_a_spreadsheet_makes_of_it(tmp_path):
    """All lines as long as the longest; a point that was not set as NA (public AFIDs files)."""
    lines = (
        HEADER + row() + row("NA", "NA", "NA", label="pg") + row("", "", "", label="li")
    ).split()
    for text, commas in (
        (HEADER + row() + row("NA", "NA", "NA", label="pg"), 13),
        (SLICER_5_4, 15),
    ):
        padded = [
            line + "," * (commas - line.count(",")) if line.startswith("#") else line
            for line in text.splitlines()
        ]
        expected = read_landmarks(save(tmp_path, text))
        found = read_landmarks(save(tmp_path, "\r\n".join(padded)))
        assert list(found) == list(expected)
        for label, point in expected.items():
            np.testing.assert_array_equal(found[label], point)
    wider = [line + ",,," for line in (HEADER + row()).splitlines()]
    np.testing.assert_array_equal(
        read_landmarks(save(tmp_path, "\n".join(wider)))["nasion"], [-1, -2, 3]
    )
    assert np.isnan(read_landmarks(save(tmp_path, HEADER + lines[-1] + "\n" + row()))["li"]).all()


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
        pytest.param(
            HEADER.replace(",associatedNodeID", "") + row(label="F-1", rest=",x"),
            "F-1",
            id="a name fewer",
        ),
        pytest.param(
            HEADER.replace("# columns = id,x", "#columns= id, x") + row(label="F-1"),
            "F-1",
            id="other spaces",
        ),
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
    "cut short": (HEADER + row()[:40], "14 fields in line 4", "got 7"),
    "open quote": (HEADER + row(label='"nas', rest=""), "fields in line 4", "unexpected end"),
    "not a number": (HEADER + row(y="two"), "three finite numbers", "'1,two,3'"),
    "one NaN": (HEADER + row(y="nan"), "three finite numbers", "'1,nan,3'"),
    "one left out": (HEADER + row(y=""), "three finite numbers", "'1,,3'"),
    "no such status": (HEADER + row(rest=",,,4,0"), "14 fields in line 4", "got 16"),
    "a status alone": (HEADER + row(rest=",,,2"), "14 fields in line 4", "got 15"),
    "too many fields": (HEADER + row(rest=",,,2,0,0"), "14 fields in line 4", "got 17"),
    "defined, but nowhere": (
        HEADER + row(y="x", rest=",,,2,0"),
        "three finite numbers",
        "'1,x,3'",
    ),
    "digits with underscores": (HEADER + row(y="1_0"), "three finite numbers", "'1,1_0,3'"),
    "decimal commas": (HEADER + row(x="1,5", y="2,5"), "14 fields in line 4", "got 16"),
    "unplaced": (HEADER + row("0", "0.000", "-0"), "delete its row", "got 0,0,0"),
    "other columns": (
        HEADER.replace("label,", "name,") + row(),
        "the columns id,x,y,z,ow",
        "lock,name,desc",
    ),
    "another order of columns": (
        "# CoordinateSystem = LPS\n# columns = label,z,y,x\na,1,2,3\n",
        "the columns id,x,y,z,ow",
        "label,z,y,x",
    ),
    "a column fewer in the header": (
        HEADER.replace(",ox", "") + row(rest=","),
        "the columns id,x,y,z,ow",
        "ow,oy",
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


FULL = HEADER.replace("associatedNodeID", "associatedNodeID,positionStatus,autoCreated")


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(FULL, id="the two last columns named"),
        pytest.param(
            "\n".join(f'"{line}"' for line in HEADER.strip().split("\n")) + "\n",
            id="comments quoted by a spreadsheet",
        ),
    ],
)
def test_headers_that_say_the_same(tmp_path, header):
    path = tmp_path / "f.fcsv"
    path.write_text(header + row(label="a", rest=",,,2,0") + row(label="b", rest=",,,0,0"))
    points = read_landmarks(path)
    assert np.isfinite(points["a"]).all() and np.isnan(points["b"]).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(HEADER.replace("oz", "z") + row(), "the columns id,x,y,z,ow", id="z twice"),
        pytest.param(
            HEADER + COLUMNS.replace("ow", "w0") + row(), "one line of columns", id="two headers"
        ),
        pytest.param(
            HEADER + "1,1,5,2,3,0,0,0,1,1,1,0,a,\n", "an orientation of length 1", id="comma"
        ),
        pytest.param(HEADER + row().strip()[:-3], "14 fields in line 4", id="cut in its last row"),
    ],
)
def test_tables_that_would_be_read_wrongly(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read_landmarks(save(tmp_path, text))


def test_an_orientation_that_says_nothing(tmp_path):
    """As some of 216 annotators' files have it (afids-qc)."""
    text = HEADER + row(label="a").replace("0,0,0,1", "nan,0.000,nan,nan")
    np.testing.assert_array_equal(read_landmarks(save(tmp_path, text))["a"], [-1.0, -2.0, 3.0])
