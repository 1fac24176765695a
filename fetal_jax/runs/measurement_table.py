"""Craniofacial measurements of predicted faces: measurements.csv, and what their errors come to."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fetal_jax import measurements, metrics
from fetal_jax.io.tables import read_table, write_table
from fetal_jax.measurements import Measurement
from fetal_jax.runs.columns import CASE_COLUMNS, list_case_cells, parse_numbers, parse_words

if TYPE_CHECKING:  # which holds measured faces
    from fetal_jax.runs.summary import Part

COLUMNS = (
    *("case", "measurement", "name", "unit", "truth", "prediction", "error", "note"),
    *CASE_COLUMNS,
)
NEW_COLUMNS = ("case", "measurement", "name", "unit", "value", "note")


class MeasuredFaces(NamedTuple):
    """M measurements of N cases, [N, M] in their units; NaN where there is none, as `gaps` says.

    truth: from the annotated points, NaN where one is absent; predicted: from the predicted ones,
    NaN where one is absent or not to be relied on. gaps: [N][M], "" where there is none.
    """

    measurements: tuple[Measurement, ...]
    truth: np.ndarray
    predicted: np.ndarray
    gaps: list[list[str]]


class MeasurementRows(NamedTuple):
    """The rows of measurements.csv as columns [n]; numbers are NaN where the file has none."""

    measurement: np.ndarray  # of str
    truth: np.ndarray
    predicted: np.ndarray
    age_weeks: np.ndarray


def measure_predictions(
    predicted_mm: np.ndarray,
    confidence: np.ndarray,
    labels: Sequence[str],
    *,
    min_confidence: float,
    truth_mm: np.ndarray | None = None,
    visible: np.ndarray | None = None,
) -> MeasuredFaces:
    """Measure predicted faces and, where it is known, the truth.

    Args:
      predicted_mm: [N, L, 3] RAS+ mm.
      confidence: [N, L].
      labels: L names.
      min_confidence: with less a landmark that is not known to be visible is not measured from.
      truth_mm: [N, L, 3], NaN where absent; None for new scans.
      visible: [N, L] bool; None for new scans.
    """
    chosen = measurements.choose_measurements(labels)
    known = np.isfinite(truth_mm).all(axis=-1) if truth_mm is not None else None
    present = known if known is not None else np.ones(confidence.shape, bool)
    doubt = dict(min_confidence=min_confidence)
    usable = measurements.find_usable(present, visible, confidence, **doubt)
    gaps = measurements.find_gaps(labels, chosen, present, visible, confidence, **doubt)
    predicted = measurements.measure_faces(
        np.where(usable[..., None], predicted_mm, np.nan), labels, chosen
    )
    truth = np.full(predicted.shape, np.nan)
    if truth_mm is not None:
        truth = measurements.measure_faces(truth_mm, labels, chosen)
    return MeasuredFaces(chosen, truth, predicted, gaps)


def join_faces(parts: Sequence[MeasuredFaces]) -> MeasuredFaces:
    """The faces of all parts, of the same measurements."""
    return MeasuredFaces(
        parts[0].measurements,
        np.concatenate([faces.truth for faces in parts]),
        np.concatenate([faces.predicted for faces in parts]),
        [gaps for faces in parts for gaps in faces.gaps],
    )


def summarise_measurements(faces: MeasuredFaces, subjects: Sequence[str]) -> dict[str, dict]:
    """For each measurement what results.json says; None where nothing is known.

    n: cases with both numbers; gaps: cases without a prediction; true_mean; bias: mean of predicted
    minus true; error_sd; limits: of agreement, bias ± 1.96 sd (Bland & Altman 1986, Lancet
    327:307); mean_abs_error with its interval over subjects.
    """
    summary = {}
    for i, one in enumerate(faces.measurements):
        error = faces.predicted[:, i : i + 1] - faces.truth[:, i : i + 1]
        known = np.isfinite(error)
        values = error[known]
        n = int(values.size)
        bias = float(values.mean()) if n else None
        sd = float(values.std(ddof=1)) if n > 1 else None
        summary[one.key] = {
            "name": one.name,
            "unit": one.unit,
            "n": n,
            "gaps": int(np.isnan(faces.predicted[:, i]).sum()),
            "true_mean": float(faces.truth[known[:, 0], i].mean()) if n else None,
            "bias": bias,
            "error_sd": sd,
            "limits": None if sd is None else [bias - 1.96 * sd, bias + 1.96 * sd],
            "mean_abs_error": float(np.abs(values).mean()) if n else None,
            "mean_abs_error_ci": metrics.bootstrap_interval(np.abs(error), known, subjects),
        }
    return summary


def write_tested_measurements(path: Path, parts: Sequence["Part"]) -> None:
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
    """measurements.csv of new scans (N names), of which there is no truth."""

    def list_rows():
        for n, name in enumerate(names):
            for one, (_, predicted, _), note in _list_values(faces, n):
                yield [name, one.key, one.name, one.unit, predicted, note]

    write_table(path, NEW_COLUMNS, list_rows())


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
