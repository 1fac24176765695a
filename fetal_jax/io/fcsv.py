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
# From Slicer 5.2 on a row has two fields more than its header names: whether the point was set, and
# whether by a program (discourse.slicer.org, topic 32318). An unset one keeps left-over numbers.
STATUSES = {"0": "undefined", "1": "preview", "2": "defined", "3": "missing"}
UNDEFINED, DEFINED = ("0", "0"), ("2", "0")  # status, not by a program
NOT_SET = ("", "na", "n/a", "nan")  # as tables write a number that there is none of
SLICER3_COLUMNS = "label,x,y,z,sel,vis".split(",")


def parse_fcsv(
    path: Path, text: str, system: str | None
) -> Iterator[tuple[str, str | None, list[float] | None, str]]:
    """Yield (where in the file, label, position [3] mm, "LPS" or "RAS") for each row.

    The position is None of a point that is not set: its status says so, or its numbers are NA or
    left out, all three. Labels are not checked.

    Args:
      path: named in errors.
      text: the file's.
      system: "LPS" or "RAS", used where the file names none.

    Raises:
      InputError: no axis system or an unknown one, other columns, a position that is not three
        finite numbers, or 0,0,0 without a status, which Slicer before 5.2 writes for a point that
        was never placed.
    """
    lines = [
        (i, _unquote(line)) for i, line in enumerate(text.split("\n"), start=1) if line.strip()
    ]
    # a spreadsheet makes all lines as long as the longest
    padded = any(line.startswith("#") and line.rstrip().endswith(",") for _, line in lines)
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
        while padded and len(fields) > len(columns) and not fields[-1].strip():
            fields.pop()
        status = _parse_status(fields[len(columns) :]) if columns == COLUMNS else None
        if len(fields) > len(columns) and status is None:
            # a decimal comma, or a comma in a label without quotes
            raise mismatch(path, f"{len(columns)} fields in {where}", str(len(fields)))
        cut_off = line is lines[-1][1] and not text.endswith("\n") and len(fields) < len(columns)
        if cut_off or len(fields) <= max(columns.index(name) for name in ("label", *"xyz")):
            raise mismatch(path, f"{len(columns)} fields in {where}", str(len(fields)))
        row = dict(zip(columns, fields, strict=False))
        if not _is_orientation([row.get(name, "") for name in ("ow", "ox", "oy", "oz")]):
            # as after a decimal comma in a row that lacks its last field
            raise mismatch(path, f"an orientation of length 1 in {where}", line[:80])
        label, texts = row.get("label"), [row.get(axis, "") for axis in "xyz"]
        if status not in (None, "defined") or all(t.strip().lower() in NOT_SET for t in texts):
            yield where, label, None, system
            continue
        position = [_parse_number(text) for text in texts]
        if not all(map(math.isfinite, position)):
            expected = f"three finite numbers as the position in {where}"
            raise mismatch(path, expected, repr(",".join(texts)))
        if not any(position) and status is None:
            expected = f"a placed point {label!r} (delete its row if the landmark is absent)"
            came = "0,0,0, as which Slicer writes an unplaced one"
            raise mismatch(path, expected, came)
        yield where, label, position, system


def format_fcsv(
    points: Mapping[str, list[float] | None], descriptions: Mapping[str, str], system: str
) -> str:
    """The file's text with Slicer 4.11's header.

    With the status of each point, as Slicer 5.2 writes it, only where one is undefined or lies at
    the origin: programs that know the header alone read the other files.

    Args:
      points: label -> position [3] mm in the axes of `system`, None where undefined.
      descriptions: label -> text.
      system: "LPS" or "RAS".
    """
    with_status = not all(position and any(position) for position in points.values())
    lines = [
        "# Markups fiducial file version = 4.11",
        f"# CoordinateSystem = {system}",
        f"# columns = {','.join(COLUMNS)}",
    ]
    for number, (label, position) in enumerate(points.items(), start=1):
        # Slicer reads this format line by line: no line breaks in a field
        description = " ".join(descriptions.get(label, "").split())
        status = (UNDEFINED if position is None else DEFINED) if with_status else ()
        fields = [str(number), *map(repr, position or [0.0] * 3), *"0001", *"110"]
        lines.append(",".join([*fields, _quote(label), _quote(description), "", *status]))
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
    if len(comments.get("columns", ())) > 1:
        raise mismatch(path, "one line of columns", " and ".join(comments["columns"]))
    if "columns" not in comments:  # Slicer 3 wrote no version
        versioned = "markups fiducial file version" in comments
        return COLUMNS if versioned else SLICER3_COLUMNS
    columns = [name.strip() for name in comments["columns"][0].split(",")]
    if columns == SLICER3_COLUMNS:
        return SLICER3_COLUMNS
    # the last two that Slicer 4.11 names may be missing; the two that 5.2 adds may have names
    if columns[: len(COLUMNS)] != COLUMNS[: len(columns)] or len(columns) not in (12, 13, 14, 16):
        # Slicer goes by a field's place: with another name, or without one, the two disagree
        raise mismatch(path, f"the columns {','.join(COLUMNS)}", ",".join(columns))
    return columns[: len(COLUMNS)]


def _parse_comments(lines: list[tuple[int, str]]) -> dict[str, list[str]]:
    """Collect the `# key = value` lines: key in lower case -> its distinct values."""
    comments: dict[str, list[str]] = {}
    for _, line in lines:
        key, equals, value = line.lstrip("#").partition("=")
        if line.startswith("#") and equals:
            values = comments.setdefault(key.strip().lower(), [])
            value = value.strip().rstrip(",").strip()  # commas of a spreadsheet
            if value not in values:
                values.append(value)
    return comments


def _parse_status(more: list[str]) -> str | None:
    """What the fields after COLUMNS say of a point, if that is what they are."""
    if len(more) == 2 and more[0].strip() in STATUSES and more[1].strip() in ("0", "1"):
        return STATUSES[more[0].strip()]
    return None


def _unquote(line: str) -> str:
    """A comment without the quotes that a spreadsheet puts round one with commas."""
    return line.strip().strip(",").strip('"') if line.lstrip().startswith('"#') else line


def _is_orientation(texts: list[str]) -> bool:
    """Whether four fields are a quaternion, or zeros, or say nothing: some files have nan there."""
    numbers = [_parse_number(text) for text in texts]
    if not all(map(math.isfinite, numbers)):
        return True
    return min(abs(math.hypot(*numbers) - length) for length in (0, 1)) < 0.01


def _parse_number(text: str) -> float:
    try:
        return math.nan if "_" in text else float(text)  # float("1_0") is 10 in Python
    except ValueError:
        return math.nan


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",]', text) else text
