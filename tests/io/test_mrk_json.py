"""Slicer's `.mrk.json`: what Slicer writes is read, and what cannot be trusted is refused."""

import json

import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks, write_mrk_json
from fetal_jax.io.mrk_json import SCHEMA, parse_color

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


def save(folder, content):
    path = folder / "case.mrk.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


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


GOOD = {"label": "a", "position": [1, 2, 3]}
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
    [pytest.param(*values, id=name) for name, values in BAD_JSON.items()],
)
def test_json_that_cannot_be_trusted(tmp_path, content, expected, came):
    check_refusal(save(tmp_path, content), expected, came)


def test_a_color_is_shares_of_one():
    assert parse_color("#ff8000") == [1.0, 0.502, 0.0]
    with pytest.raises(ValueError, match="expected a color like '#2de1c2', got 'red'"):
        parse_color("red")
