"""Parsing and formatting of a 3D Slicer Markups JSON file (`.mrk.json`).

Positions here are in the axes that the markup names; `fetal_jax.io.markups` converts them to RAS+.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fetal_jax.io.files import mismatch

SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
)
KNOWN_SCHEMA = re.compile(r"markups-schema-v1\.\d+\.\d+\.json#?$", re.IGNORECASE)
# "missing" is Slicer 5's word for a point that the user skipped on purpose.
ABSENT_STATUSES = ("undefined", "preview", "missing")
# Slicer's default orientation of a point: the identity in RAS.
ORIENTATIONS = {
    "LPS": [-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0],
    "RAS": [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0],
}


def parse_mrk_json(path: Path, text: str) -> Iterator[tuple[str, object, list[float] | None, str]]:
    """Yield (where in the file, label, position [3] mm, "LPS" or "RAS") for each point.

    The position is None where undefined. Labels are not checked.

    Args:
      path: named in errors.
      text: the file's.

    Raises:
      InputError: another format, version, unit or axis system; a position that is not three
        finite numbers.
    """
    try:
        content = json.loads(text, object_pairs_hook=_refuse_twice)
    except (ValueError, RecursionError) as error:
        raise mismatch(path, "JSON", f"text that is none ({error})") from None
    schema = content.get("@schema") if isinstance(content, dict) else None
    if not isinstance(schema, str) or not KNOWN_SCHEMA.search(schema):
        raise mismatch(path, "@schema ending in markups-schema-v1.X.Y.json", repr(schema))
    for markup in _list_of_objects(path, content.get("markups"), "markups"):
        if markup.get("type") != "Fiducial":
            raise mismatch(path, "a markup of type 'Fiducial'", repr(markup.get("type")))
        units = markup.get("coordinateUnits", "mm")
        if (units[:2] if isinstance(units, list) else units) not in ("mm", ["mm", "UCUM"]):
            raise mismatch(path, "coordinateUnits 'mm'", repr(units))
        system = markup.get("coordinateSystem", "LPS")
        if system not in ("LPS", "RAS"):
            raise mismatch(path, "coordinateSystem 'LPS' or 'RAS'", repr(system))
        points = _list_of_objects(path, markup.get("controlPoints", []), "controlPoints")
        for number, point in enumerate(points, start=1):
            label = point.get("label")
            yield f"point {number}", label, _parse_position(path, label, point), system


def format_mrk_json(
    points: Mapping[str, list[float] | None],
    descriptions: Mapping[str, str],
    system: str,
    color: str | None = None,
) -> str:
    """The text of a file with one Fiducial list.

    Args:
      points: label -> position [3] mm in the axes of `system`, None where undefined.
      descriptions: label -> text.
      system: "LPS" or "RAS".
      color: "#rrggbb" or None.

    Raises:
      ValueError: a color of another form.
    """
    control_points = []
    for number, (label, position) in enumerate(points.items(), start=1):
        point = {
            "id": str(number),
            "label": label,
            "description": descriptions.get(label, ""),
            "associatedNodeID": "",
        }
        if position is not None:
            point["position"] = position
        point |= {
            "orientation": ORIENTATIONS[system],
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "undefined" if position is None else "defined",
        }
        control_points.append(point)
    markup = {
        "type": "Fiducial",
        "coordinateSystem": system,
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(control_points),
        "controlPoints": control_points,
    }
    if color is not None:
        rgb = parse_color(color)
        # Slicer shows points in selectedColor unless the user deselects them
        markup["display"] = {"color": rgb, "selectedColor": rgb, "glyphType": "Sphere3D"}
    text = json.dumps({"@schema": SCHEMA, "markups": [markup]}, indent=2, ensure_ascii=False)
    # Lists of numbers on one line. JSON escapes line breaks in texts, so only lists match.
    return re.sub(r"\[\n([^\[\]{}\"]*)\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n"


def parse_color(color: str) -> list[float]:
    """Red, green and blue in [0, 1] of "#rrggbb", to four digits as in Slicer's files.

    Raises:
      ValueError: a color of another form.
    """
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
        raise ValueError(f"expected a color like '#2de1c2', got {color!r}")
    return [round(int(color[i : i + 2], 16) / 255, 4) for i in (1, 3, 5)]


def _parse_position(path: Path, label: object, point: dict) -> list[float] | None:
    """The position, None where undefined. The status decides: numbers of an undefined point
    may be left over.
    """
    status = point.get("positionStatus")
    if "positionStatus" in point and status not in ("defined", *ABSENT_STATUSES):
        known = f"defined, {', '.join(ABSENT_STATUSES)}"
        raise mismatch(path, f"a positionStatus of {label!r} among {known}", repr(status))
    if status in ABSENT_STATUSES:
        return None
    position = point.get("position")
    expected = f"three finite numbers as the position of {label!r}"
    if _is_blank(position):
        if not status:
            return None
        raise mismatch(path, f"{expected}, as its status is 'defined'", repr(position))
    numbers = isinstance(position, list) and all(type(x) in (int, float) for x in position)
    if not numbers or len(position) != 3 or not all(abs(x) < 1e300 for x in position):
        raise mismatch(path, expected, repr(position))
    return [float(x) for x in position]


def _refuse_twice(pairs: list[tuple[str, object]]) -> dict:
    """An object of JSON, whose keys must differ: which of two values counts nobody says."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(k for k in keys if keys.count(k) > 1)!r} twice in one object")
    return content


def _is_blank(position: object) -> bool:
    """Whether a position is one of the values that programs write for no position."""
    nans = isinstance(position, list) and all(isinstance(x, float) for x in position)
    return position in ("", None, []) or (
        nans and len(position) == 3 and all(map(math.isnan, position))
    )


def _list_of_objects(path: Path, value: object, key: str) -> list[dict]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise mismatch(path, f"{key} as a list of objects", repr(value))
    return value
