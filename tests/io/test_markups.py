"""Slicer's landmark files: what comes in comes out, and what cannot be trusted is refused."""

import json

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks, write_fcsv, write_landmarks, write_mrk_json
from fetal_jax.io.mrk_json import SCHEMA

COLUMNS = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
HEADER = "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n" + COLUMNS
POINTS = {
    "nasion": np.array([1 / 3, -12.5, 1e-7]),
    "exocanthion left": np.array([-31.123456789012345, 0.0, 987.654321]),
    'quoted "x", y': np.array([1.0, 2.0, 3.0]),
    "été": np.array([-1.0, 2.0, -3.0]),
}


def mrk(*points, **markup):
    """A file's content with one markup; keyword arguments replace its keys."""
    markup = {"type": "Fiducial", "controlPoints": list(points), **markup}
    return {"@schema": SCHEMA, "markups": [markup]}


def save(folder, content, name="case.mrk.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def row(x="1", y="2", z="3", label="nasion", rest=",,"):
    return f"vtkMRMLMarkupsFiducialNode_0,{x},{y},{z},0,0,0,1,1,1,0,{label}{rest}\n"


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


def test_written_json_is_what_slicer_writes(tmp_path):
    path = tmp_path / "new" / "folder" / "case.mrk.json"
    points = {"a": np.array([1.0, -2.0, 3.0]), "b": np.full(3, np.nan)}
    write_mrk_json(path, points, descriptions={"a": "line\n[ 1, 2 ]"})
    content = json.loads(path.read_text())
    (markup,) = content["markups"]
    there, absent = markup["controlPoints"]
    assert content["@schema"].endswith("markups-schema-v1.0.3.json#")
    assert (markup["type"], markup["coordinateSystem"]) == ("Fiducial", "LPS")
    assert markup["coordinateUnits"] == "mm"
    assert there["position"] == [-1.0, 2.0, 3.0]
    assert there["orientation"] == [-1, 0, 0, 0, -1, 0, 0, 0, 1]
    assert there["positionStatus"] == "defined"
    assert there["description"] == "line\n[ 1, 2 ]"
    assert absent["positionStatus"] == "undefined"
    assert "position" not in absent


def test_a_color_is_added_and_changes_nothing_else(tmp_path):
    plain, colored = tmp_path / "plain.mrk.json", tmp_path / "colored.mrk.json"
    write_mrk_json(plain, POINTS)
    write_mrk_json(colored, POINTS, color="#ff8000")
    (before,), (after,) = (json.loads(path.read_text())["markups"] for path in (plain, colored))
    assert "display" not in before
    display = after.pop("display")
    assert after == before
    for key in ("color", "selectedColor"):  # Slicer shows selected points in the second
        np.testing.assert_allclose(display[key], [1, 128 / 255, 0], atol=1e-4)
    assert '"color": [1.0, 0.502, 0.0]' in colored.read_text()
    found = read_landmarks(colored)
    for label, position in POINTS.items():
        np.testing.assert_array_equal(found[label], position)


@pytest.mark.parametrize("color", ["red", "#ff800", "#ff80001", "ff8000", "#gg8000", "#ff8000\n"])
def test_a_color_of_another_form(tmp_path, color):
    with pytest.raises(ValueError, match="expected a color like '#2de1c2', got"):
        write_mrk_json(tmp_path / "case.mrk.json", POINTS, color=color)
    assert not list(tmp_path.iterdir())


def test_written_fcsv_names_its_system_and_leaves_out_the_undefined(tmp_path):
    path = tmp_path / "case.fcsv"
    points = {"a, b": np.array([1.0, -2.0, 3.0]), "u": np.full(3, np.nan)}
    write_fcsv(path, points, descriptions={"a, b": 'two\nlines, "quoted"'})
    lines = path.read_text().splitlines()
    assert "\n".join(lines[:3]) + "\n" == HEADER
    assert lines[3:] == ['1,-1.0,2.0,3.0,0,0,0,1,1,1,0,"a, b","two lines, ""quoted""",']


@pytest.mark.parametrize("suffix", [".mrk.json", ".fcsv"])
def test_the_same_points_give_the_same_bytes_and_no_other_file(tmp_path, suffix):
    first, second = tmp_path / f"1{suffix}", tmp_path / f"2{suffix}"
    write_landmarks(first, POINTS)
    write_landmarks(second, {label: list(position) for label, position in POINTS.items()})
    assert first.read_bytes() == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "case.mrk.json"
    write_mrk_json(path, POINTS)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_mrk_json(path, {"other": np.ones(3)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_undefined_survives_the_round_trip(tmp_path):
    path = tmp_path / "case.mrk.json"
    write_mrk_json(path, {"a": np.ones(3), "b": np.full(3, np.nan)})
    found = read_landmarks(path)
    assert list(found) == ["a", "b"]
    assert np.isnan(found["b"]).all()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param({}, [-1, -2, 3], id="no system is LPS"),
        pytest.param({"coordinateSystem": "LPS"}, [-1, -2, 3], id="LPS"),
        pytest.param({"coordinateSystem": "RAS"}, [1, 2, 3], id="RAS"),
        pytest.param({"coordinateUnits": "mm"}, [-1, -2, 3], id="mm"),
        pytest.param({"coordinateUnits": ["mm", "UCUM", "millimeter"]}, [-1, -2, 3], id="coded mm"),
    ],
)
def test_json_axes_and_units(tmp_path, keys, expected):
    path = save(tmp_path, mrk({"label": " a ", "position": [1, 2, 3]}, **keys))
    found = read_landmarks(path, coordinate_system="RAS")  # a JSON file speaks for itself
    np.testing.assert_array_equal(found["a"], expected)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"position": "", "positionStatus": "undefined"}, id="as Slicer writes it"),
        pytest.param({"position": [1, 2, 3], "positionStatus": "undefined"}, id="status first"),
        pytest.param({"position": [1, 2, 3], "positionStatus": "preview"}, id="preview"),
        pytest.param({"positionStatus": "missing"}, id="skipped on purpose"),
        pytest.param({"position": ""}, id="empty text"),
        pytest.param({"position": None}, id="null"),
        pytest.param({"position": []}, id="empty list"),
        pytest.param({"position": [float("nan")] * 3}, id="NaN"),
        pytest.param({}, id="no position"),
    ],
)
def test_undefined_points_are_listed_but_absent(tmp_path, keys):
    found = read_landmarks(save(tmp_path, mrk({"label": "a", **keys})))
    assert list(found) == ["a"]
    assert np.isnan(found["a"]).all()


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        SCHEMA.removesuffix("#"),
        SCHEMA.replace("v1.0.3", "v1.12.0"),
        SCHEMA.upper(),
        "markups-schema-v1.0.0.json#",
    ],
)
def test_schemas_of_every_minor_version_are_read(tmp_path, schema):
    content = mrk({"label": "a", "position": [1, 2, 3]}) | {"@schema": schema}
    assert list(read_landmarks(save(tmp_path, content))) == ["a"]


def test_several_markups_and_a_byte_order_mark(tmp_path):
    content = mrk({"label": "a", "position": [1, 2, 3]})
    content["markups"] += mrk({"label": "b", "position": [1, 2, 3]}, coordinateSystem="RAS")[
        "markups"
    ]
    content["markups"] += mrk()["markups"]
    found = read_landmarks(save(tmp_path, "\ufeff" + json.dumps(content)))
    np.testing.assert_array_equal(found["a"], [-1, -2, 3])
    np.testing.assert_array_equal(found["b"], [1, 2, 3])


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
    path = save(tmp_path, HEADER.replace("LPS", word) + row(), "case.fcsv")
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
    found = read_landmarks(save(tmp_path, text, "case.fcsv"))
    assert list(found) == [label]
    np.testing.assert_array_equal(found[label], [-1, -2, 3])


@pytest.mark.parametrize(("system", "expected"), [("LPS", [-1, -2, 3]), ("RAS", [1, 2, 3])])
def test_fcsv_without_a_system_is_read_as_the_caller_says(tmp_path, system, expected):
    path = save(tmp_path, COLUMNS + row(), "case.fcsv")
    found = read_landmarks(path, coordinate_system=system)
    np.testing.assert_array_equal(found["nasion"], expected)


GOOD = {"label": "a", "position": [1, 2, 3]}
# name -> (content, what the message says was expected, what it says came)
BAD_JSON = {
    "not JSON": ("landmarks!", "expected JSON", "line 1 column 1"),
    "empty file": ("", "expected JSON", "got text that is none"),
    "truncated": (json.dumps(mrk(GOOD))[:-30], "expected JSON", "got text that is none"),
    "not an object": ([1], "@schema", "got None"),
    "no schema": ({"markups": []}, "@schema", "got None"),
    "schema of version 2": (
        mrk(GOOD) | {"@schema": "markups-schema-v2.0.0.json#"},
        "v1.X.Y",
        "v2.0.0",
    ),
    "another schema": (mrk(GOOD) | {"@schema": "other.json"}, "v1.X.Y", "other.json"),
    "no markups": ({"@schema": SCHEMA}, "markups as a list", "got None"),
    "markups of numbers": ({"@schema": SCHEMA, "markups": [1]}, "markups as a list", "[1]"),
    "a curve": (mrk(GOOD, type="Curve"), "type 'Fiducial'", "got 'Curve'"),
    "micrometres": (mrk(GOOD, coordinateUnits="um"), "coordinateUnits 'mm'", "got 'um'"),
    "coded centimetres": (
        mrk(GOOD, coordinateUnits=["cm", "UCUM", "centimeter"]),
        "coordinateUnits 'mm'",
        "['cm', 'UCUM'",
    ),
    "voxel indices": (mrk(GOOD, coordinateSystem="IJK"), "'LPS' or 'RAS'", "got 'IJK'"),
    "a numbered system": (mrk(GOOD, coordinateSystem=0), "'LPS' or 'RAS'", "got 0"),
    "no list of points": (mrk(controlPoints={}), "controlPoints as a list", "got {}"),
    "empty list": (mrk(), "at least one point", "an empty list"),
    "label twice": (mrk(GOOD, GOOD), "each label once", "two points with the label 'a'"),
    "label missing": (mrk({"position": [1, 2, 3]}), "a label for point 1", "got None"),
    "label empty": (mrk(GOOD | {"label": " "}), "a label for point 1", "got ' '"),
    "label a number": (mrk(GOOD | {"label": 7}), "a label for point 1", "got 7"),
    "unknown status": (mrk(GOOD | {"positionStatus": "lost"}), "undefined", "got 'lost'"),
    "defined but blank": (
        mrk({"label": "a", "position": "", "positionStatus": "defined"}),
        "three finite numbers as the position of 'a', as its status is 'defined'",
        "got ''",
    ),
    "two numbers": (mrk(GOOD | {"position": [1, 2]}), "three finite numbers", "[1, 2]"),
    "four numbers": (mrk(GOOD | {"position": [1, 2, 3, 1]}), "three finite", "[1, 2, 3, 1]"),
    "text as position": (mrk(GOOD | {"position": "1 2 3"}), "three finite", "'1 2 3'"),
    "numbers as text": (mrk(GOOD | {"position": ["1", 2, 3]}), "three finite", "['1', 2, 3]"),
    "a truth value": (mrk(GOOD | {"position": [True, 2, 3]}), "three finite", "[True, 2, 3]"),
    "infinite": (mrk(GOOD | {"position": [float("inf"), 2, 3]}), "three finite", "[inf"),
    "one NaN of three": (mrk(GOOD | {"position": [1, float("nan"), 3]}), "three finite", "nan"),
}
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


def as_cases(table):
    return [pytest.param(*values, id=name) for name, values in table.items()]


def check_refusal(path, expected, came, **kwargs):
    with pytest.raises(InputError) as caught:
        read_landmarks(path, **kwargs)
    (message,) = caught.value.problems
    assert message.startswith(f"{path}: expected ")
    assert "\n" not in message and len(message) < 500
    before, got, after = message.partition(", got ")
    assert expected in before
    assert came in got + after


@pytest.mark.parametrize(("content", "expected", "came"), as_cases(BAD_JSON))
def test_json_that_cannot_be_trusted(tmp_path, content, expected, came):
    check_refusal(save(tmp_path, content), expected, came)


@pytest.mark.parametrize(("content", "expected", "came"), as_cases(BAD_FCSV))
def test_fcsv_that_cannot_be_trusted(tmp_path, content, expected, came):
    check_refusal(save(tmp_path, content, "case.fcsv"), expected, came)


def test_files_that_are_none(tmp_path):
    check_refusal(tmp_path / "no.mrk.json", "a landmark file", "no such file")
    check_refusal(tmp_path / "points.csv", ".mrk.json or .fcsv", "points.csv")
    (tmp_path / "folder.fcsv").mkdir()
    check_refusal(tmp_path / "folder.fcsv", "readable", "directory")
    (tmp_path / "latin.fcsv").write_bytes(b"\xe9\xff")
    check_refusal(tmp_path / "latin.fcsv", "UTF-8", "other bytes")


def test_an_unknown_system_asked_for(tmp_path):
    with pytest.raises(InputError, match="expected LPS or RAS, got 'IJK'"):
        read_landmarks(save(tmp_path, COLUMNS + row(), "case.fcsv"), coordinate_system="IJK")


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


def test_writing_refuses_a_wrong_name_a_wrong_system_and_an_fcsv_origin(tmp_path):
    with pytest.raises(ValueError, match="ends in .mrk.json or .fcsv, got"):
        write_landmarks(tmp_path / "case.json", POINTS)
    with pytest.raises(ValueError, match="'LPS' or 'RAS', got 'XYZ'"):
        write_landmarks(tmp_path / "case.fcsv", POINTS, coordinate_system="XYZ")
    with pytest.raises(ValueError, match="use .mrk.json"):
        write_fcsv(tmp_path / "case.fcsv", {"a": np.zeros(3)})
    write_mrk_json(tmp_path / "case.mrk.json", {"a": np.zeros(3)})
    np.testing.assert_array_equal(read_landmarks(tmp_path / "case.mrk.json")["a"], 0)
