"""results.csv and external.csv: a row for each case, landmark and model."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax import metrics
from fetal_jax.io.tables import read_table, write_table
from fetal_jax.runs.columns import CASE_COLUMNS, list_case_cells, parse_numbers, parse_words
from fetal_jax.runs.summary import Part

COLUMNS = (
    *("case", "label"),
    *(f"{point}_{axis}" for point in ("truth", "prediction") for axis in "xyz"),
    *("error_mm", "visible", "confidence"),
    *CASE_COLUMNS,
)
LATER_COLUMNS = ("chance_visible", "radius_mm")  # which a table of an older version lacks


class PointRows(NamedTuple):
    """The rows as columns [n]; numbers are NaN where the file has none."""

    case: np.ndarray  # of str, as label, subject, site and fold
    label: np.ndarray
    subject: np.ndarray
    site: np.ndarray
    fold: np.ndarray
    truth_mm: np.ndarray  # [n, 3] RAS+
    predicted_mm: np.ndarray  # [n, 3] RAS+
    error_mm: np.ndarray
    visible: np.ndarray  # of bool
    confidence: np.ndarray
    age_weeks: np.ndarray
    chance: np.ndarray  # that it can be seen
    radius_mm: np.ndarray

    def select(self, chosen: np.ndarray) -> "PointRows":
        """The rows where chosen [n] is true."""
        return PointRows(*(column[chosen] for column in self))


def write_points(path: Path, labels: Sequence[str], parts: Sequence[Part]) -> None:
    """Write a row for each case and landmark (L labels) of each part."""
    rows = (row for part in parts for row in _list_rows(labels, part))
    write_table(path, (*COLUMNS, *LATER_COLUMNS), rows)


def _list_rows(labels: Sequence[str], part: Part):
    cases, predictions = part.cases, part.predictions
    error_mm = metrics.radial_errors(predictions.points_mm, cases.points_mm)
    for n, case in enumerate(cases.cases):
        for i, label in enumerate(labels):
            there, chance = cases.present[n, i], predictions.visibility[n, i]
            radius = predictions.radius_mm[n, i]
            yield [
                case.name,
                label,
                *(f"{v:.4f}" if there else "" for v in cases.points_mm[n, i]),
                *(f"{v:.4f}" for v in predictions.points_mm[n, i]),
                f"{error_mm[n, i]:.4f}" if there else "",
                int(cases.visible[n, i]),
                f"{predictions.confidence[n, i]:.4f}",
                *list_case_cells(case, part.fold),
                *(f"{v:.4f}" if np.isfinite(v) else "" for v in (chance, radius)),
            ]


def read_point_rows(path: Path) -> PointRows:
    """Read a table that `write_points` wrote.

    Raises:
      InputError: a column is missing, or a number is none.
    """
    columns, rows = read_table(path, required=COLUMNS)
    nothing = np.full(len(rows), np.nan)

    def numbers(name):
        return parse_numbers(path, rows, name)

    def vectors(name):
        return np.stack([numbers(f"{name}_{axis}") for axis in "xyz"], axis=-1)

    return PointRows(
        *(parse_words(rows, name) for name in ("case", "label", "subject", "site", "fold")),
        vectors("truth"),
        vectors("prediction"),
        numbers("error_mm"),
        parse_words(rows, "visible") == "1",
        numbers("confidence"),
        numbers("gestational_age_weeks"),
        *(numbers(name) if name in columns else nothing for name in LATER_COLUMNS),
    )
