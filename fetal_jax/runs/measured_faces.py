"""Craniofacial measurements of predicted faces, and what their errors come to."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fetal_jax import measurements, metrics, statistics
from fetal_jax.measurements import Measurement

NOISE_DRAWS = 50  # of the errors' directions, for each face


class MeasuredFaces(NamedTuple):
    """M measurements of N cases, [N, M] in their units; NaN where there is none, as `gaps` says.

    truth: from the annotated points, NaN where one is absent; predicted: from the predicted ones,
    NaN where one is absent or not to be relied on. gaps: [N][M], "" where there is none.
    noise_floor: what the errors alone make of an asymmetry, see `simulate_floor`; else NaN.
    exact: from the points where they really are, which only a phantom knows; else NaN.
    """

    measurements: tuple[Measurement, ...]
    truth: np.ndarray
    predicted: np.ndarray
    gaps: list[list[str]]
    noise_floor: np.ndarray
    exact: np.ndarray


def measure_predictions(
    predicted_mm: np.ndarray,
    confidence: np.ndarray,
    labels: Sequence[str],
    *,
    min_confidence: float,
    truth_mm: np.ndarray | None = None,
    exact_mm: np.ndarray | None = None,
    visible: np.ndarray | None = None,
    hidden: np.ndarray | None = None,
) -> MeasuredFaces:
    """Measure predicted faces and, where it is known, the truth.

    Args:
      predicted_mm: [N, L, 3] RAS+ mm.
      confidence: [N, L].
      labels: L names.
      min_confidence: with less a landmark that is not known to be visible is not measured from.
      truth_mm: [N, L, 3], NaN where absent; None for new scans.
      exact_mm: [N, L, 3], NaN where it is not known where a point really is.
      visible: [N, L] bool; None for new scans.
      hidden: [N, L] bool, what was found not to be visible: never measured from.
    """
    chosen = measurements.choose_measurements(labels)
    known = np.isfinite(truth_mm).all(axis=-1) if truth_mm is not None else None
    present = known if known is not None else np.ones(confidence.shape, bool)
    doubt = dict(min_confidence=min_confidence, hidden=hidden)
    usable = measurements.find_usable(present, visible, confidence, **doubt)
    gaps = measurements.find_gaps(labels, chosen, present, visible, confidence, **doubt)
    used_mm = np.where(usable[..., None], predicted_mm, np.nan)
    predicted = measurements.measure_faces(used_mm, labels, chosen)
    truth, floor = np.full(predicted.shape, np.nan), np.full(predicted.shape, np.nan)
    if truth_mm is not None:
        truth = measurements.measure_faces(truth_mm, labels, chosen)
        floor = simulate_floor(used_mm, truth_mm, labels, chosen)
    exact = np.full(predicted.shape, np.nan)
    if exact_mm is not None:
        exact = measurements.measure_faces(exact_mm, labels, chosen)
    return MeasuredFaces(chosen, truth, predicted, gaps, floor, exact)


def simulate_floor(
    predicted_mm: np.ndarray,
    truth_mm: np.ndarray,
    labels: Sequence[str],
    chosen: Sequence[Measurement],
) -> np.ndarray:
    """What each asymmetry of a face would be, were the face symmetric: [N, M], NaN for the others.

    An asymmetry is a distance, so that errors of the points can only add to it. Each true face is
    made symmetric, each of its points moved by its own error in a random direction, and the face
    measured: the mean of NOISE_DRAWS, always of the same seed. Errors that a whole face shares
    weigh as if they were independent.

    Args:
      predicted_mm: [N, L, 3], NaN where not measured from.
      truth_mm: [N, L, 3], NaN where absent.
      labels: L names.
      chosen: M measurements.
    """
    floor = np.full((len(truth_mm), len(chosen)), np.nan)
    places = [i for i, one in enumerate(chosen) if one.of_plane]
    if not places:
        return floor
    error_mm = np.linalg.norm(predicted_mm - truth_mm, axis=-1)
    symmetric_mm = measurements.symmetrise_faces(truth_mm, labels)
    direction = np.random.default_rng(0).normal(size=(NOISE_DRAWS, *symmetric_mm.shape))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    moved_mm = symmetric_mm + error_mm[..., None] * direction
    values = measurements.measure_faces(moved_mm, labels, [chosen[i] for i in places])
    floor[:, places] = values.mean(axis=0)
    return floor


def join_faces(parts: Sequence[MeasuredFaces]) -> MeasuredFaces:
    """The faces of all parts, of the same measurements."""
    return MeasuredFaces(
        parts[0].measurements,
        np.concatenate([faces.truth for faces in parts]),
        np.concatenate([faces.predicted for faces in parts]),
        [gaps for faces in parts for gaps in faces.gaps],
        np.concatenate([faces.noise_floor for faces in parts]),
        np.concatenate([faces.exact for faces in parts]),
    )


def summarise_measurements(
    models: Sequence[MeasuredFaces], subjects: Sequence[str]
) -> dict[str, dict]:
    """For each measurement what results.json says; None where nothing is known.

    A case counts once, with the mean over the models that measured it. n: cases with a truth and a
    prediction; gaps: cases that no model measured; true_mean; bias: mean of predicted minus true,
    with its interval over subjects; error_sd: of one difference, a child's scans taken together:
    the root of the variance between children and that within one (`statistics.variance_components`,
    where the models' differences stand as repeats); limits: of agreement, bias ± 1.96 error_sd
    (Bland & Altman 1999, Stat. Methods Med. Res. 8:135); mean_abs_error with its interval over
    subjects; noise_floor: mean of `simulate_floor`. exact: of the same cases, where a phantom knows
    them from where the points really are, the bias of the predicted and of the annotated ones from
    those, with intervals; None elsewhere.

    Args:
      models: what each of K models makes of the same N cases.
      subjects: N names.
    """
    truth = models[0].truth
    predicted = np.stack([faces.predicted for faces in models], axis=1)  # [N, K, M]
    floor = np.stack([faces.noise_floor for faces in models], axis=1)
    summary = {}
    for i, one in enumerate(models[0].measurements):
        error = predicted[..., i] - truth[:, None, i]  # [N, K]
        repeats = np.isfinite(error)
        known = repeats.any(axis=1, keepdims=True)
        each, size = _average_models(error), _average_models(np.abs(error))  # [N, 1]
        bias = _average(each[known])
        spread = statistics.variance_components(error, repeats, subjects)
        sd = None if spread is None else float(np.sqrt(sum(spread)))
        summary[one.key] = {
            "name": one.name,
            "unit": one.unit,
            "n": int(known.sum()),
            "gaps": int(np.isnan(predicted[..., i]).all(axis=1).sum()),
            "true_mean": _average(truth[known[:, 0], i]),
            "bias": bias,
            "bias_ci": statistics.bootstrap_interval(each, known, subjects),
            "error_sd": sd,
            "limits": None if sd is None else [bias - 1.96 * sd, bias + 1.96 * sd],
            "mean_abs_error": _average(size[known]),
            "mean_abs_error_ci": statistics.bootstrap_interval(size, known, subjects),
            "noise_floor": _average(_average_models(np.where(repeats, floor[..., i], np.nan))),
            "exact": _describe_exact(
                np.where(repeats, predicted[..., i], np.nan),
                truth[:, i],
                models[0].exact[:, i],
                subjects,
            ),
        }
    return summary


def _describe_exact(predicted, annotated, exact, subjects) -> dict | None:
    """Of one measurement: predicted [N, K], annotated and exact [N]."""
    each = _average_models(predicted - exact[:, None])
    own = (annotated - exact)[:, None]
    known = np.isfinite(each) & np.isfinite(own)
    if not known.any():
        return None
    return {
        "n": int(known.sum()),
        "bias": float(each[known].mean()),
        "bias_ci": statistics.bootstrap_interval(each, known, subjects),
        "annotated_bias": float(own[known].mean()),
        "annotated_bias_ci": statistics.bootstrap_interval(own, known, subjects),
    }


def _average_models(values: np.ndarray) -> np.ndarray:
    """[N, 1], the mean over the models that have a value [N, K]; NaN where none has."""
    return metrics.mean_known(values, axis=1)[:, None]


def _average(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None
