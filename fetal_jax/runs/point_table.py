"""results.csv: a row for each case, landmark and model."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.io.tables import read_table

CSV_COLUMNS = (
    "case,label,truth_x,truth_y,truth_z,prediction_x,prediction_y,prediction_z,"
    "error_mm,visible,confidence,subject,site,gestational_age_weeks,fold"
).split(",")


class Points(NamedTuple):
    """The rows as columns [n]; numbers are NaN where the file has none."""

    case: np.ndarray  # of str, as label, subject, site and fold
    label: np.ndarray
    subject: np.ndarray
    site: np.ndarray
    fold: np.ndarray
    truth_mm: np.ndarray  # [n, 3] RAS+
    found_mm: np.ndarray  # [n, 3] RAS+
    error_mm: np.ndarray
    visible: np.ndarray  # of bool
    confidence: np.ndarray
    age_weeks: np.ndarray

    def select(self, chosen: np.ndarray) -> "Points":
        """The rows where chosen [n] is true."""
        return Points(*(column[chosen] for column in self))


def read_points(path: Path) -> Points:
    """Read a table that `evaluate.write_points` wrote.

    Raises:
      InputError: a column is missing, or a number is none.
    """
    _, rows = read_table(path, required=tuple(CSV_COLUMNS))

    def words(name):
        return np.array([row[name] for _, row in rows], dtype=object)

    def numbers(name):
        try:
            return np.array([float(row[name] or "nan") for _, row in rows])
        except ValueError as error:
            raise InputError(f"{path}: expected numbers in {name}, got {error}") from None

    def vectors(name):
        return np.stack([numbers(f"{name}_{axis}") for axis in "xyz"], axis=-1)

    return Points(
        *(words(name) for name in ("case", "label", "subject", "site", "fold")),
        vectors("truth"),
        vectors("prediction"),
        numbers("error_mm"),
        words("visible") == "1",
        numbers("confidence"),
        numbers("gestational_age_weeks"),
    )
