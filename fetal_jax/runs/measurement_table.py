"""Measurements of cases, true and found: measurements.csv, and what their errors come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fetal_jax import measurements, metrics
from fetal_jax.data.cases import PreparedCases
from fetal_jax.io.tables import write_table
from fetal_jax.measurements import Measurement

COLUMNS = (
    "case,measurement,name,unit,truth,prediction,error,note,subject,site,gestational_age_weeks,fold"
).split(",")


@dataclass(frozen=True)
class MeasuredFaces:
    """M measurements of N cases, [N, M] in their units; NaN where there is none, as `gaps` says.

    true: from the annotated points, NaN where one is absent; found: from the predicted ones, NaN
    where one is absent or not to be relied on.
    """

    measurements: tuple[Measurement, ...]
    true: np.ndarray
    found: np.ndarray
    gaps: list[list[str]]


def measure_predictions(
    found_mm: np.ndarray,
    confidence: np.ndarray,
    labels: Sequence[str],
    *,
    min_confidence: float,
    points_mm: np.ndarray | None = None,
    visible: np.ndarray | None = None,
) -> MeasuredFaces:
    """Measure predicted faces and, where it is known, the truth.

    Args:
      found_mm: [N, L, 3] RAS+ mm.
      confidence: [N, L].
      min_confidence: with less a landmark that is not known to be visible is not measured from.
      points_mm: [N, L, 3], NaN where absent; None for new scans.
      visible: [N, L] bool; None for new scans.
    """
    chosen = measurements.choose_measurements(labels)
    known = np.isfinite(points_mm).all(axis=-1) if points_mm is not None else None
    present = known if known is not None else np.ones(confidence.shape, bool)
    doubt = dict(min_confidence=min_confidence)
    usable = measurements.find_usable(present, visible, confidence, **doubt)
    gaps = measurements.find_gaps(labels, chosen, present, visible, confidence, **doubt)
    found = measurements.measure_faces(
        np.where(usable[..., None], found_mm, np.nan), labels, chosen
    )
    true = np.full(found.shape, np.nan)
    if points_mm is not None:
        true = measurements.measure_faces(points_mm, labels, chosen)
    return MeasuredFaces(chosen, true, found, gaps)


def measure_cases(
    prepared: PreparedCases, found_mm: np.ndarray, confidence: np.ndarray, labels, **settings
) -> MeasuredFaces:
    """`measure_predictions` of cases whose truth is known."""
    return measure_predictions(
        found_mm,
        confidence,
        labels,
        points_mm=prepared.points_mm,
        visible=prepared.visible,
        **settings,
    )


def summarise_measurements(faces: MeasuredFaces, subjects: Sequence[str]) -> dict[str, dict]:
    """For each measurement what results.json says; None where nothing is known.

    n: cases with both numbers; gaps: cases without a prediction; true_mean; bias: mean of found
    minus true; error_sd; limits: of agreement, bias ± 1.96 sd (Bland & Altman 1986, Lancet
    327:307); mean_abs_error with its interval over subjects.
    """
    summary = {}
    for i, one in enumerate(faces.measurements):
        error = faces.found[:, i : i + 1] - faces.true[:, i : i + 1]
        known = np.isfinite(error)
        values = error[known]
        n = int(values.size)
        bias = float(values.mean()) if n else None
        sd = float(values.std(ddof=1)) if n > 1 else None
        summary[one.key] = {
            "name": one.name,
            "unit": one.unit,
            "n": n,
            "gaps": int(np.isnan(faces.found[:, i]).sum()),
            "true_mean": float(faces.true[known[:, 0], i].mean()) if n else None,
            "bias": bias,
            "error_sd": sd,
            "limits": None if sd is None else [bias - 1.96 * sd, bias + 1.96 * sd],
            "mean_abs_error": float(np.abs(values).mean()) if n else None,
            "mean_abs_error_ci": metrics.bootstrap_interval(np.abs(error), known, subjects),
        }
    return summary


def write_measurements(path: Path, parts: list[tuple[str, PreparedCases, MeasuredFaces]]) -> None:
    """measurements.csv: a row for each case and measurement of each part (fold, cases, faces)."""

    def rows():
        for fold, prepared, faces in parts:
            for n, case in enumerate(prepared.cases):
                age = f"{case.age_weeks:g}" if np.isfinite(case.age_weeks) else ""
                for row in _rows_of_case(case.name, faces, n):
                    yield [*row, case.subject, case.site, age, fold]

    write_table(path, COLUMNS, rows())


def write_new_measurements(path: Path, names: Sequence[str], faces: MeasuredFaces) -> None:
    """measurements.csv of new scans, of which there is no truth."""

    def rows():
        for n, name in enumerate(names):
            for row in _rows_of_case(name, faces, n):
                case, key, title, unit, _, found, _, note = row
                yield [case, key, title, unit, found, note]

    write_table(path, ["case", "measurement", "name", "unit", "value", "note"], rows())


def _rows_of_case(name: str, faces: MeasuredFaces, n: int):
    for i, one in enumerate(faces.measurements):
        true, found = faces.true[n, i], faces.found[n, i]
        numbers = [f"{v:.3f}" if np.isfinite(v) else "" for v in (true, found, found - true)]
        yield [name, one.key, one.name, one.unit, *numbers, faces.gaps[n][i]]
