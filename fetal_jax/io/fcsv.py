"""Parsing and formatting of a 3D Slicer `.fcsv` file.

Positions here are in the axes that the file names; `fetal_jax.io.markups` converts them to RAS+.
"""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fetal_jax.io.files import mismatch

# Before Slicer 4.11 the system was a number; 2 would be voxel indices, which are refused.
SYSTEMS = {"RAS": "RAS", "0": "RAS", "LPS": "LPS", "1": "LPS"}
COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID".split(",")
SLICER3_COLUMNS = "label,x,y,z,sel,vis".split(",")


def parse_fcsv(
    path: Path, text: str, system: str | None
) -> Iterator[tuple[str, str | None, list[float], str]]:
    """Yield (where in the file, label, position [3] mm, "LPS" or "RAS") for each row.

    Labels are not checked.

    Args:
      path: named in errors.
      text: the file's.
      system: "LPS" or "RAS", used where the file names none.

    Raises:
      InputError: no axis system or an unknown one, other columns, a position that is not three
        finite numbers, or 0,0,0, which Slicer writes for a point that was never placed.
    """
    lines = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    comments = _parse_comments(lines)
    system = _choose_system(path, comments.get("coordinatesystem", []), system)
    columns = _choose_columns(path, comments)
    for number, line in lines:
        if line.startswith("#"):
            continue
        where = f"line {number}"
        try:
            (fields,) = csv.reader([line], strict=True)
        except csv.Error as error:
            raise mismatch(path, f"comma-separated fields in {where}", str(error)) from None
        if len(fields) > len(columns):  # a decimal comma, or a comma in a label without quotes
            raise mismatch(path, f"{len(columns)} fields in {where}", str(len(fields)))
        row = dict(zip(columns, fields, strict=False))
        label, texts = row.get("label"), [row.get(axis, "") for axis in "xyz"]
        position = [_parse_number(text) for text in texts]
        if not all(map(math.isfinite, position)):
            expected = f"three finite numbers as the position in {where}"
            raise mismatch(path, expected, repr(",".join(texts)))
        if not any(position):
            expected = f"a placed point {label!r} (delete its row if the landmark is absent)"
            came = "0,0,0, as which Slicer writes an unplaced one"
            raise mismatch(path, expected, came)
        yield where, label, position, system


def format_fcsv(
    points: Mapping[str, list[float] | None], descriptions: Mapping[str, str], system: str
) -> str:
    """The file's text with Slicer 4.11's header.

    Args:
      points: label -> position [3] mm in the axes of `system`; an undefined one (None) is left out.
      descriptions: label -> text.
      system: "LPS" or "RAS".

    Raises:
      ValueError: a point at the origin.
    """
    lines = [
        "# Markups fiducial file version = 4.11",
        f"# CoordinateSystem = {system}",
        f"# columns = {','.join(COLUMNS)}",
    ]
    for number, (label, position) in enumerate(points.items(), start=1):
        if position is None:
            continue
        if not any(position):
            raise ValueError(f"{label!r} lies at 0,0,0, which .fcsv cannot hold; use .mrk.json")
        # Slicer reads this format line by line: no line breaks in a field
        description = " ".join(descriptions.get(label, "").split())
        fields = [str(number), *map(repr, position), *"0001", *"110"]
        lines.append(",".join([*fields, _quote(label), _quote(description), ""]))
    return "\n".join(lines) + "\n"


def _choose_system(path: Path, stated: list[str], otherwise: str | None) -> str:
    if len(stated) > 1:
        raise mismatch(path, "one CoordinateSystem", " and ".join(stated))
    if stated and stated[0].upper() not in SYSTEMS:
        raise mismatch(path, "CoordinateSystem LPS, RAS, 0 or 1", repr(stated[0]))
    system = SYSTEMS[stated[0].upper()] if stated else otherwise
    if system is None:
        came = "none; write it there, or set coordinate_system for all such files"
        raise mismatch(path, "a line '# CoordinateSystem = LPS' or RAS", came)
    return system


def _choose_columns(path: Path, comments: dict[str, list[str]]) -> list[str]:
    if "columns" in comments:
        columns = [name.strip() for name in comments["columns"][0].split(",")]
    else:  # Slicer 3 wrote no version
        versioned = "markups fiducial file version" in comments
        columns = COLUMNS if versioned else SLICER3_COLUMNS
    if not {"label", "x", "y", "z"} <= set(columns):
        raise mismatch(path, "columns label, x, y and z", ",".join(columns))
    return columns


def _parse_comments(lines: list[tuple[int, str]]) -> dict[str, list[str]]:
    """Collect the `# key = value` lines: key in lower case -> its distinct values."""
    comments: dict[str, list[str]] = {}
    for _, line in lines:
        key, equals, value = line.lstrip("#").partition("=")
        if line.startswith("#") and equals:
            values = comments.setdefault(key.strip().lower(), [])
            if value.strip() not in values:
                values.append(value.strip())
    return comments


def _parse_number(text: str) -> float:
    try:
        return math.nan if "_" in text else float(text)  # float("1_0") is 10 in Python
    except ValueError:
        return math.nan


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",]', text) else text
