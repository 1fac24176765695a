"""Craniofacial measurements of predicted faces, and what their errors come to."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fetal_jax import measurements, statistics
from fetal_jax.measurements import Measurement


class MeasuredFaces(NamedTuple):
    """M measurements of N cases, [N, M] in their units; NaN where there is none, as `gaps` says.

    truth: from the annotated points, NaN where one is absent; predicted: from the predicted ones,
    NaN where one is absent or not to be relied on. gaps: [N][M], "" where there is none.
    """

    measurements: tuple[Measurement, ...]
    truth: np.ndarray
    predicted: np.ndarray
    gaps: list[list[str]]


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
            "mean_abs_error_ci": statistics.bootstrap_interval(np.abs(error), known, subjects),
        }
    return summary
