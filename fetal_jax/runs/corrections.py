"""What a person made of a landmark file that the program wrote."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks
from fetal_jax.io.tables import shorten
from fetal_jax.runs.found_files import Written

MOVED_MM = 0.01  # less is what digits do


class Correction(NamedTuple):
    """Of one landmark.

    change: "moved", "confirmed", "undefined", of a point that had a position, "defined", of one
      that had none, or "removed", of one that is not in the file any more.
    moved_mm: from where it was written; NaN where one of the two has no position.
    found_mm, given_mm: [3] RAS+, where it was found, and where the person has it or NaN.
    """

    label: str
    change: str
    moved_mm: float
    found_mm: np.ndarray
    given_mm: np.ndarray


def find_corrections(path: Path, written: Written) -> list[Correction]:
    """Each predicted landmark as the file has it now.

    Raises:
      InputError: the file cannot be read, or has a landmark that was not predicted: a label that
        was mistyped, or a point that was set by accident.
    """
    points = read_landmarks(path)
    if unknown := [label for label in points if label not in written.points_mm]:
        missing = [label for label in written.points_mm if label not in points]
        lacks = f", and lacks {shorten(missing)}" if missing else ""
        raise InputError(
            f"{path}: expected the landmarks that were predicted, got {shorten(unknown)} as "
            f"well{lacks}: rename or delete it in 3D Slicer"
        )
    nowhere = np.full(3, np.nan)
    return [
        _compare(label, found_mm, label in written.undefined, points.get(label, nowhere))
        if label in points
        else Correction(label, "removed", np.nan, found_mm, nowhere)
        for label, found_mm in written.points_mm.items()
    ]


def _compare(
    label: str, found_mm: np.ndarray, was_undefined: bool, given_mm: np.ndarray
) -> Correction:
    is_undefined = not np.isfinite(given_mm).all()
    if was_undefined or is_undefined:
        change = "defined" if not is_undefined else "confirmed" if was_undefined else "undefined"
        return Correction(label, change, np.nan, found_mm, given_mm)
    moved_mm = float(np.linalg.norm(given_mm - found_mm))
    change = "moved" if moved_mm > MOVED_MM else "confirmed"
    return Correction(label, change, moved_mm, found_mm, given_mm)


def describe_corrections(corrections: list[Correction]) -> str:
    """'2 moved (exL 6.3 mm, n 1.0 mm), 1 undefined (chR), 16 confirmed'."""
    said = []
    moved = sorted((one for one in corrections if one.change == "moved"), key=lambda c: -c.moved_mm)
    if moved:
        named = [f"{one.label} {one.moved_mm:.1f} mm" for one in moved]
        said.append(f"{len(moved)} moved ({shorten(named)})")
    for change in ("undefined", "defined", "removed"):
        if named := [one.label for one in corrections if one.change == change]:
            said.append(f"{len(named)} {change} ({shorten(named)})")
    if count := sum(one.change == "confirmed" for one in corrections):
        said.append(f"{count} confirmed")
    return ", ".join(said)
