"""The numbers of results.json, from the predictions for cases whose landmarks are known."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from fetal_jax import metrics, statistics
from fetal_jax.data.cases import PreparedCases
from fetal_jax.runs import measured_faces
from fetal_jax.runs.measured_faces import MeasuredFaces
from fetal_jax.runs.predictions import Predictions, join_predictions

CONFIDENCE_BINS = 5
ENSEMBLE = "ensemble"  # in place of a fold: the mean of what the folds' models predict


class Part(NamedTuple):
    """N tested cases: those of a run, or of one fold of a cross-validation.

    fold: its name; '' for a run, ENSEMBLE for the mean of all folds' models.
    guess_error_mm: [N, L] of `guess_errors`.
    """

    fold: str
    cases: PreparedCases
    predictions: Predictions
    faces: MeasuredFaces
    guess_error_mm: np.ndarray


def make_part(
    fold: str,
    cases: PreparedCases,
    predictions: Predictions,
    labels: Sequence[str],
    guess_error_mm: np.ndarray,
    *,
    min_confidence: float,
) -> Part:
    """A `Part`, its faces measured; min_confidence: of `measured_faces.measure_predictions`."""
    faces = measured_faces.measure_predictions(
        predictions.points_mm,
        predictions.confidence,
        labels,
        min_confidence=min_confidence,
        truth_mm=cases.points_mm,
        visible=cases.visible,
    )
    return Part(fold, cases, predictions, faces, guess_error_mm)


def guess_errors(cases: PreparedCases, guess_mm: np.ndarray) -> np.ndarray:
    """[N, L] mm: errors of what a program that never looks at the image would say.

    Args:
      guess_mm: [L, 3], mean position of the training cases in mm from the grid's first voxel.
    """
    spacing_mm = cases.grids[0].spacing_mm
    guess_vox = np.broadcast_to(np.asarray(guess_mm) / spacing_mm, cases.points_vox.shape)
    return metrics.radial_errors(guess_vox, cases.points_vox) * spacing_mm


def summarise_parts(
    parts: Sequence[Part],
    labels: Sequence[str],
    *,
    radii_mm: Sequence[float],
    ela_radii_mm: np.ndarray,
    age_groups_weeks: Sequence[float],
    confidence_radius_mm: float,
) -> dict:
    """The numbers of all cases of the parts together.

    Args:
      labels: L names.
      radii_mm: of the success rates.
      ela_radii_mm: [R], of the local accuracy.
      age_groups_weeks: where one group of gestational ages ends and the next begins.
      confidence_radius_mm: a confidence is the chance of lying within it.

    Returns:
      A dict that JSON takes; visible landmarks at the top, the completed ones apart.
    """
    first, *others = (part.cases for part in parts)
    cases = first.join(*others) if others else first  # joining copies every volume
    predictions = join_predictions([part.predictions for part in parts])
    faces = measured_faces.join_faces([part.faces for part in parts])
    guess_error_mm = np.concatenate([part.guess_error_mm for part in parts])
    error_mm = metrics.radial_errors(predictions.points_mm, cases.points_mm)  # [N, L]
    argmax_error_mm = metrics.radial_errors(predictions.argmax_mm, cases.points_mm)
    visible, completed = cases.visible, cases.present & ~cases.visible
    subjects = cases.subjects

    def describe(counted, values=error_mm):
        numbers = metrics.summarise_errors(values, counted, radii_mm)
        return numbers | {"d_mean_ci_mm": statistics.bootstrap_interval(values, counted, subjects)}

    def describe_groups(names):
        return {
            name: describe(visible & (np.array(names) == name)[:, None])
            for name in sorted(set(names))
        }

    overall = describe(visible)
    near = error_mm <= confidence_radius_mm
    return {
        "cases": len({case.name for case in cases.cases}),
        "subjects": len(set(subjects)),
        "landmarks": overall.pop("n"),
        **overall,
        "argmax_d_mean_mm": _average(argmax_error_mm[visible]),
        "guess_d_mean_mm": _average(guess_error_mm[visible]),
        "annotators": _describe_annotators(cases.spread_mm[visible]),
        "completed": describe(completed),
        "per_landmark": {
            label: describe(visible[:, i : i + 1], error_mm[:, i : i + 1])
            | _describe_trust(near[visible[:, i], i], predictions.confidence[visible[:, i], i])
            for i, label in enumerate(labels)
        },
        "per_site": describe_groups([case.site or "unknown" for case in cases.cases]),
        "per_age_group": describe_groups(
            [_name_age(case.age_weeks, age_groups_weeks) for case in cases.cases]
        ),
        "confidence": _summarise_confidence(predictions.confidence, near, visible, subjects)
        | {"radius_mm": confidence_radius_mm},
        "ela": _summarise_local(predictions, visible, labels, ela_radii_mm),
        "measurements": measured_faces.summarise_measurements(faces, subjects),
    }


def _average(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _describe_annotators(spread_mm: np.ndarray) -> dict | None:
    """How far annotators are apart on the points that two of them set, else None."""
    known = spread_mm[np.isfinite(spread_mm)]
    return {"n": int(known.size), "apart_mm": float(known.mean())} if known.size else None


def _describe_trust(near: np.ndarray, confidence: np.ndarray) -> dict:
    """Share of one landmark's points [n] that were near enough, with Wilson's 95 % interval."""
    n = len(near)
    if not n:
        return {"within_radius": None, "within_radius_ci": None, "confidence_mean": None}
    within = int(near.sum())
    low, high = stats.binomtest(within, n).proportion_ci(method="wilson")
    return {
        "within_radius": within / n,
        "within_radius_ci": [float(low), float(high)],
        "confidence_mean": float(np.mean(confidence)),
    }


def _summarise_confidence(confidence, within, counted, subjects) -> dict:
    """Whether confidences [N, L] keep their promise: bins of equal counts, and the Brier score."""
    values = confidence[counted]
    if not values.size:
        return {"brier": None, "bins": []}
    edges = np.quantile(values, np.linspace(0, 1, CONFIDENCE_BINS + 1)[1:-1])
    place = np.searchsorted(np.unique(edges), confidence, side="right")
    bins = []
    for i in range(CONFIDENCE_BINS):
        chosen = counted & (place == i)
        if chosen.any():
            share = float(within[chosen].mean())
            interval = statistics.bootstrap_interval(within.astype(float), chosen, subjects)
            bins.append(
                {
                    "n": int(chosen.sum()),
                    "confidence": float(confidence[chosen].mean()),
                    "share": share,
                    "ci": interval or [share, share],
                }
            )
    return {"brier": float(np.mean((values - within[counted]) ** 2)), "bins": bins}


def _name_age(weeks: float, ends: Sequence[float]) -> str:
    """'<24', '24-28', ..., '>=32' weeks, or 'unknown'."""
    if not np.isfinite(weeks):
        return "unknown"
    place = int(np.searchsorted(ends, weeks, side="right"))
    if place == 0:
        return f"<{ends[0]:g}"
    return f">={ends[-1]:g}" if place == len(ends) else f"{ends[place - 1]:g}-{ends[place]:g}"


def _summarise_local(predictions: Predictions, visible, labels, radii_mm) -> dict:
    """Curves of the expected local accuracy: a landmark's is its mean over the cases."""
    curves, limits = {}, []
    for i, label in enumerate(labels):
        known = visible[:, i] & np.isfinite(predictions.local_mm[:, i]).all(axis=-1)
        if known.any():
            curves[label] = predictions.local_mm[known, i].mean(axis=0, dtype=np.float64)
            limits.append(predictions.local_guess_mm[known, i].mean(axis=0, dtype=np.float64))

    def tidy(curve):
        return [round(float(v), 4) for v in curve]

    return {
        "radii_mm": tidy(radii_mm),
        "overall": tidy(np.mean(list(curves.values()), axis=0)) if curves else None,
        "guess": tidy(np.mean(limits, axis=0)) if limits else None,
        "per_landmark": {label: tidy(curve) for label, curve in curves.items()},
    }
