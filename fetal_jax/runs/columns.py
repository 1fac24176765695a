"""Columns that results.csv and measurements.csv share, written and read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fetal_jax.data.case_table import Case
from fetal_jax.errors import InputError

CASE_COLUMNS = ("subject", "site", "gestational_age_weeks", "fold")


def list_case_cells(case: Case, fold: str) -> list[str]:
    """The cells of CASE_COLUMNS; '' for what is not known."""
    age = f"{case.age_weeks:g}" if np.isfinite(case.age_weeks) else ""
    return [case.subject, case.site, age, fold]


def parse_words(rows: Sequence[tuple[int, dict]], name: str) -> np.ndarray:
    """A column of `tables.read_table`'s rows: [n] of str."""
    return np.array([row[name] for _, row in rows], dtype=object)


def parse_numbers(path: Path, rows: Sequence[tuple[int, dict]], name: str) -> np.ndarray:
    """A column of `tables.read_table`'s rows: [n], NaN where a cell is empty.

    Raises:
      InputError: a cell is no number; it names the file at `path`.
    """
    try:
        return np.array([float(row[name] or "nan") for _, row in rows])
    except ValueError as error:
        raise InputError(f"{path}: expected numbers in {name}, got {error}") from None
