"""measurements.csv: a row for each case and measurement."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax.io.tables import read_own_table, read_table, write_table
from fetal_jax.measurements import Measurement
from fetal_jax.runs.columns import CASE_COLUMNS, list_case_cells, parse_numbers, parse_words
from fetal_jax.runs.measured_faces import MeasuredFaces
from fetal_jax.runs.summary import Part

COLUMNS = (
    *("case", "measurement", "name", "unit", "truth", "prediction", "error", "note"),
    *CASE_COLUMNS,
)
NEW_COLUMNS = ("case", "measurement", "name", "unit", "value", "note")


class MeasurementRows(NamedTuple):
    """The rows of measurements.csv as columns [n]; numbers are NaN where the file has none."""

    measurement: np.ndarray  # of str
    truth: np.ndarray
    predicted: np.ndarray
    age_weeks: np.ndarray


def write_tested_measurements(path: Path, parts: Sequence[Part]) -> None:
    """measurements.csv of cases whose truth is known: a row for each case and measurement.

    No file where the labels allow no measurement.
    """

    def list_rows():
        for part in parts:
            for n, case in enumerate(part.cases.cases):
                for one, cells, note in _list_values(part.faces, n):
                    known = [case.name, one.key, one.name, one.unit, *cells, note]
                    yield [*known, *list_case_cells(case, part.fold)]

    if parts[0].faces.measurements:
        write_table(path, COLUMNS, list_rows())


def write_new_measurements(path: Path, names: Sequence[str], faces: MeasuredFaces) -> None:
    """measurements.csv of new scans (N names), of which there is no truth.

    Rows of other scans that are there already stay.

    Raises:
      InputError: a file of that name that is another table.
    """
    before = read_new_measurements(path)

    def list_rows():
        yield from (row for row in before if row[0] not in names)
        for n, name in enumerate(names):
            for one, (_, predicted, _), note in _list_values(faces, n):
                yield [name, one.key, one.name, one.unit, predicted, note]

    write_table(path, NEW_COLUMNS, list_rows())


def read_new_measurements(path: Path) -> list[list[str]]:
    """The rows of a table that `write_new_measurements` wrote; none where there is no file.

    Raises:
      InputError: it is another table.
    """
    rows = read_own_table(path, NEW_COLUMNS)
    return [list(row.values()) for _, row in rows]


def read_measurement_rows(path: Path) -> MeasurementRows:
    """Read a table that `write_tested_measurements` wrote.

    Raises:
      InputError: a column is missing, or a number is none.
    """
    _, rows = read_table(path, required=COLUMNS)
    return MeasurementRows(
        parse_words(rows, "measurement"),
        parse_numbers(path, rows, "truth"),
        parse_numbers(path, rows, "prediction"),
        parse_numbers(path, rows, "gestational_age_weeks"),
    )


def _list_values(
    faces: MeasuredFaces, n: int
) -> Iterator[tuple[Measurement, tuple[str, str, str], str]]:
    """(measurement, (truth, prediction, error), note) of the measurements of one face."""
    for i, one in enumerate(faces.measurements):
        truth, predicted = faces.truth[n, i], faces.predicted[n, i]
        cells = [
            f"{v:.3f}" if np.isfinite(v) else "" for v in (truth, predicted, predicted - truth)
        ]
        yield one, tuple(cells), faces.gaps[n][i]
