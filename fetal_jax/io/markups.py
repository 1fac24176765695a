"""Landmarks in 3D Slicer's files, `.mrk.json` and `.fcsv`: read and written in RAS+ mm.

Landmarks are `label -> [3]`, float64. A point that a file lists without a position is NaN: known by
name, absent from the image. Points are matched by label, never by order.

Both formats state whether their numbers are LPS or RAS. Only the JSON has a default (LPS); an
`.fcsv` that does not state it is refused unless the caller knows, since a wrong guess swaps left
and right and is hard to notice.
"""

import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.geometry import LPS_TO_RAS
from fetal_jax.io.fcsv import format_fcsv, parse_fcsv
from fetal_jax.io.files import (
    LANDMARK_SUFFIXES,
    FilePath,
    compose,
    describe_link,
    mismatch,
    split_suffix,
    write_atomically,
)
from fetal_jax.io.mrk_json import format_mrk_json, parse_mrk_json

SIGNS = {"RAS": np.ones(3), "LPS": LPS_TO_RAS}  # from the axes of a file to RAS, and back


def read_landmarks(
    path: FilePath, *, coordinate_system: str | None = None
) -> dict[str, np.ndarray]:
    """Read a landmark file into label -> float64 [3], RAS+ mm; NaNs where a point is undefined.

    Args:
      path: a `.mrk.json` or `.fcsv` file.
      coordinate_system: "LPS" or "RAS", for an `.fcsv` that names none. What the file states
        takes precedence.

    Raises:
      InputError: the file cannot be trusted; one line says what was expected and what came.
    """
    path = Path(path)
    if coordinate_system not in (None, *SIGNS):
        raise InputError(f"coordinate_system: expected LPS or RAS, got {coordinate_system!r}")
    suffix = split_suffix(path, LANDMARK_SUFFIXES)[1]
    if not suffix:
        raise mismatch(path, "a name that ends in .mrk.json or .fcsv", repr(path.name))
    text = _read_text(path)
    if suffix == ".mrk.json":
        rows = parse_mrk_json(path, text)
    else:
        rows = parse_fcsv(path, text, coordinate_system)

    points: dict[str, np.ndarray] = {}
    for where, label, position, system in rows:
        if not isinstance(label, str) or not is_label(compose(label.strip())):
            raise mismatch(path, f"a label for {where}", repr(label))
        label = compose(label.strip())
        if label in points:
            raise mismatch(path, "each label once", f"two points with the label {label!r}")
        points[label] = np.full(3, np.nan) if position is None else _flip(position, system)
    if not points:
        raise mismatch(path, "at least one point", "an empty list")
    return points


def write_landmarks(
    path: FilePath,
    points: Mapping[str, np.ndarray],
    descriptions: Mapping[str, str] | None = None,
    *,
    coordinate_system: str = "LPS",
) -> None:
    """Write `.mrk.json` or `.fcsv`, by the name's ending; see `write_mrk_json`, `write_fcsv`.

    Raises:
      ValueError: another ending, or what the two refuse.
    """
    write_atomically(path, format_landmarks(path, points, descriptions, coordinate_system))


def format_landmarks(
    path: FilePath,
    points: Mapping[str, np.ndarray],
    descriptions: Mapping[str, str] | None = None,
    coordinate_system: str = "LPS",
) -> bytes:
    """What `write_landmarks` writes."""
    suffix = split_suffix(path, LANDMARK_SUFFIXES)[1]
    if not suffix:
        raise ValueError(f"expected a name that ends in .mrk.json or .fcsv, got {str(path)!r}")
    form = format_mrk_json if suffix == ".mrk.json" else format_fcsv
    stored = _to_stored(points, coordinate_system)
    return form(stored, descriptions or {}, coordinate_system).encode()


def write_mrk_json(
    path: FilePath,
    points: Mapping[str, np.ndarray],
    *,
    descriptions: Mapping[str, str] | None = None,
    coordinate_system: str = "LPS",
    color: str | None = None,
) -> None:
    """Write one Fiducial list; NaNs become a point without a position, of status "undefined".

    Args:
      path: replaced in one step. The same points give the same bytes.
      points: label -> [3], RAS+ mm, written with every digit and in the mapping's order.
      descriptions: label -> text that Slicer shows beside the point.
      coordinate_system: the axes in the file, "LPS" (as Slicer writes) or "RAS".
      color: "#rrggbb", in which Slicer shows the points; None for its default.

    Raises:
      ValueError: a point that is not three finite numbers or three NaNs; a label that would not
        be read back; an unknown coordinate system; a color of another form.
    """
    stored = _to_stored(points, coordinate_system)
    text = format_mrk_json(stored, descriptions or {}, coordinate_system, color)
    write_atomically(path, text.encode())


def write_fcsv(
    path: FilePath,
    points: Mapping[str, np.ndarray],
    *,
    descriptions: Mapping[str, str] | None = None,
    coordinate_system: str = "LPS",
) -> None:
    """Write an `.fcsv`; the arguments are those of `write_mrk_json`, without a color.

    Where a point is undefined all have their status, as Slicer 5.2 and later write it; Slicer
    before 5.2 takes an undefined one for a point at the origin.

    Raises:
      ValueError: as in `write_mrk_json`.
    """
    stored = _to_stored(points, coordinate_system)
    text = format_fcsv(stored, descriptions or {}, coordinate_system)
    write_atomically(path, text.encode())


def _to_stored(
    points: Mapping[str, np.ndarray], coordinate_system: str
) -> dict[str, list[float] | None]:
    """Label -> three floats in the file's axes, or None where undefined."""
    if coordinate_system not in SIGNS:
        raise ValueError(f"expected coordinate_system 'LPS' or 'RAS', got {coordinate_system!r}")
    stored = {}
    for label, position in points.items():
        if not is_label(label):
            raise ValueError(f"expected a label on one line, got {label!r}")
        position = np.asarray(position, np.float64)
        if position.shape != (3,):
            raise ValueError(f"expected [3] for {label!r}, got {position.shape}")
        absent = bool(np.isnan(position).all())
        if not absent and not np.isfinite(position).all():
            raise ValueError(f"expected finite numbers or all NaN for {label!r}, got {position}")
        stored[label] = None if absent else _flip(position, coordinate_system).tolist()
    return stored


def is_label(text: str) -> bool:
    """Whether a text is there, on one line, without spaces round it or control characters."""
    breaking = ("Cc", "Cs", "Zl", "Zp")  # control, half a character, end of a line
    return text == text.strip() != "" and not any(
        unicodedata.category(letter) in breaking for letter in text
    )


def _flip(position: np.ndarray | list[float], system: str) -> np.ndarray:
    return np.asarray(position, np.float64) * SIGNS[system] + 0.0  # -0.0 becomes 0.0


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise mismatch(path, "a landmark file", describe_link(path) or "no such file") from None
    except UnicodeDecodeError as error:
        raise mismatch(path, "UTF-8 text", f"other bytes ({error.reason})") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        came = getattr(error, "strerror", None) or str(error)
        raise mismatch(path, "a readable landmark file", came) from None
