"""What single annotators marked in the cases of a data set, reading by reading."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax.data.case_table import Case
from fetal_jax.data.dataset import Dataset, natural_key
from fetal_jax.errors import InputError
from fetal_jax.io.markups import read_landmarks


class Observed(NamedTuple):
    """N cases with readings of A annotators, at most R of each in a case; L landmarks.

    points_mm: [N, A, R, L, 3] RAS+ mm, NaN where a reading leaves a point out or is not there.
    read: [N, A, R] bool, whether there is such a reading.
    visible: [N, L] bool, whether a point that is there was seen, not completed.
    """

    cases: tuple[Case, ...]
    labels: tuple[str, ...]
    annotators: tuple[str, ...]
    points_mm: np.ndarray
    read: np.ndarray
    visible: np.ndarray

    @property
    def subjects(self) -> list[str]:
        return [case.subject for case in self.cases]


def read_observers(dataset: Dataset, *, coordinate_system: str | None = None) -> Observed:
    """Read all readings; a case's own file is no reading, for it may be made from them.

    Args:
      coordinate_system: "LPS" or "RAS", for `.fcsv` files that name none.

    Raises:
      InputError: no case has two readings, or a file cannot be read.
    """
    cases = tuple(case for case in dataset.cases if case.readings)
    if not any(len(case.reading_paths) > 1 for case in cases):
        raise InputError(
            f"{dataset.root / 'landmarks'}: expected two readings of a case, as "
            "CASE.ANNOTATOR.mrk.json of two annotators, or CASE.ANNOTATOR-2.mrk.json beside it, "
            f"got {len(cases)} cases with one and {len(dataset.cases) - len(cases)} with none"
        )
    annotators = sorted({one.annotator for case in cases for one in case.readings}, key=natural_key)
    most = max(len(one.paths) for case in cases for one in case.readings)
    points_mm = np.full((len(cases), len(annotators), most, len(dataset.labels), 3), np.nan)
    read = np.zeros(points_mm.shape[:3], bool)
    for n, case in enumerate(cases):
        for one in case.readings:
            a = annotators.index(one.annotator)
            for r, path in enumerate(one.paths):
                points_mm[n, a, r] = read_points(path, dataset.labels, coordinate_system)
                read[n, a, r] = True
    visible = np.array(
        [[c.visible is None or label in c.visible for label in dataset.labels] for c in cases]
    )
    return Observed(cases, dataset.labels, tuple(annotators), points_mm, read, visible)


def read_points(
    path: Path, labels: Sequence[str], coordinate_system: str | None = None
) -> np.ndarray:
    """A landmark file's points [L, 3], RAS+ mm, NaN where absent.

    Raises:
      InputError: it cannot be read.
    """
    points = read_landmarks(path, coordinate_system=coordinate_system)
    return np.stack([points.get(label, np.full(3, np.nan)) for label in labels])
