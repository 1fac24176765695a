"""`landmarks.csv`: the landmarks in the channels' order, and each one's mirror."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.io.tables import find_table, note_unused_columns, read_table, shorten

COLUMNS = ("label", "name", "mirror", "definition")


@dataclass(frozen=True)
class Landmark:
    """One landmark; `mirror` is the label on the other side, '' on the midline or if unknown."""

    label: str
    name: str = ""
    mirror: str = ""
    definition: str = ""


def index_mirrors(landmarks: Sequence[Landmark]) -> np.ndarray | None:
    """int [L], the permutation that swaps left and right, or None if there are no pairs."""
    labels = [mark.label for mark in landmarks]
    index = [labels.index(mark.mirror or mark.label) for mark in landmarks]
    return np.array(index) if index != list(range(len(index))) else None


def read_landmark_table(
    path: Path, labels: Mapping[str, Path], problems: list[str], assumptions: list[str]
) -> tuple[Landmark, ...]:
    """The landmarks of landmarks.csv, or of the landmark files where there is no such table.

    Args:
      path: of the table, which may be missing.
      labels: label -> a landmark file that has it.
      problems: a list to which each problem is added.
      assumptions: a list to which each assumption is added.
    """
    union = tuple(Landmark(label) for label in labels)
    if not find_table(path, problems):
        assumptions.append(
            f"no {path.name}: the landmarks are the {len(union)} labels found in the files, in "
            "natural order; no mirror pairs, so no flips"
        )
        return union
    try:
        columns, rows = read_table(path, required=("label",))
    except InputError as error:
        problems += error.problems
        return union
    marks: dict[str, Landmark] = {}
    for line, row in rows:
        label = row["label"]
        if not label or label in marks:
            came = repr(label) + (" again" if label else "")
            problems.append(f"{path}: line {line}: expected a new label, got {came}")
            continue
        texts = [row.get(column, "") for column in COLUMNS[1:]]
        marks[label] = Landmark(label, *texts)
    for mark in marks.values():
        other = marks.get(mark.mirror)
        if mark.mirror and other is None:
            problems.append(
                f"{path}: expected the mirror of {mark.label!r} to be a label of this table, "
                f"got {mark.mirror!r}"
            )
        elif other and other.mirror != mark.label and other is not mark:
            problems.append(
                f"{path}: expected the mirror of {other.label!r} to be {mark.label!r}, whose "
                f"mirror it is, got {other.mirror!r}"
            )
    for label, file in labels.items():
        if label not in marks:
            problems.append(f"{file}: expected only labels of {path}, got {label!r}")
    if all(mark.mirror in ("", mark.label) for mark in marks.values()):
        assumptions.append(f"{path.name} names no mirror: no mirror pairs, so no flips")
    note_unused_columns(path, columns, COLUMNS, assumptions)
    unused = [label for label in marks if label not in labels]
    if not unused or not labels:  # of none it is said elsewhere
        return tuple(marks.values())
    assumptions.append(
        f"listed in {path.name} but in no landmark file, and left out: {shorten(unused)}"
    )
    return tuple(
        replace(mark, mirror="" if mark.mirror in unused else mark.mirror)
        for mark in marks.values()
        if mark.label not in unused
    )
