"""The numbers of results.json, from the predictions for cases whose landmarks are known."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fetal_jax import metrics, statistics
from fetal_jax.data.cases import PreparedCases
from fetal_jax.runs import measured_faces
from fetal_jax.runs.measured_faces import MeasuredFaces
from fetal_jax.runs.predictions import Predictions, find_hidden, join_predictions
from fetal_jax.runs.region import summarise_region
from fetal_jax.runs.visibility import summarise_completion, summarise_visibility

ENSEMBLE = "ensemble"  # in place of a fold: the mean of what the folds' models predict


class Part(NamedTuple):
    """N tested cases: those of a run, or of one fold of a cross-validation.

    fold: its name; '' for a run, ENSEMBLE for the mean of all folds' models.
    guess_error_mm: [N, L] of `guess_errors`.
    visible_share: [L] of `DataRecord`, or None.
    """

    fold: str
    cases: PreparedCases
    predictions: Predictions
    faces: MeasuredFaces
    guess_error_mm: np.ndarray
    visible_share: np.ndarray | None = None


def make_part(
    fold: str,
    cases: PreparedCases,
    predictions: Predictions,
    labels: Sequence[str],
    guess_error_mm: np.ndarray,
    *,
    min_confidence: float,
    min_visible: float = 0.0,
    visible_share: Sequence[float] | None = None,
) -> Part:
    """A `Part`, its faces measured; min_confidence: of `measured_faces.measure_predictions`.

    What has a smaller chance than `min_visible` to be seen is not measured from.
    """
    faces = measured_faces.measure_predictions(
        predictions.points_mm,
        predictions.confidence,
        labels,
        min_confidence=min_confidence,
        truth_mm=cases.points_mm,
        exact_mm=cases.true_mm,
        visible=cases.visible,
        hidden=find_hidden(predictions.visibility, min_visible),
    )
    share = None if visible_share is None else np.array(visible_share)
    return Part(fold, cases, predictions, faces, guess_error_mm, share)


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
    mirror_index: np.ndarray | None = None,
    min_visible: float = 0.0,
    region_share: float = 0.0,
) -> dict:
    """The numbers of all cases of the parts together.

    A case counts once. Parts of the same cases are what several models find in them: of each point
    the mean of the models' errors counts (not the error of their mean, which is that of ENSEMBLE),
    the share of the models that are within a radius, and their mean confidence.

    Args:
      labels: L names.
      radii_mm: of the success rates.
      ela_radii_mm: [R], of the local accuracy.
      age_groups_weeks: where one group of gestational ages ends and the next begins.
      confidence_radius_mm: a confidence is the chance of lying within it.
      mirror_index: [L], which landmark is the other side's; None without pairs.
      min_visible: of `visibility.summarise_visibility`.
      region_share: of the points that are to lie within their radius; 0: there are no radii.

    Returns:
      A dict that JSON takes; visible landmarks at the top, the completed ones apart.

    Raises:
      ValueError: parts that share some of their cases, or some cases with more models than others.
    """
    models = _arrange_models(parts)
    first, *others = (part.cases for part in models[0])
    cases = first.join(*others) if others else first  # joining copies every volume
    each = [join_predictions([part.predictions for part in one]) for one in models]
    faces = [measured_faces.join_faces([part.faces for part in one]) for one in models]
    predictions = Predictions(*(np.stack(arrays) for arrays in zip(*each, strict=True)))
    guess_error_mm = np.stack(
        [np.concatenate([part.guess_error_mm for part in one]) for one in models]
    )
    truth_mm = np.broadcast_to(cases.points_mm, predictions.points_mm.shape)
    error_mm = metrics.radial_errors(predictions.points_mm, truth_mm)  # [K, N, L]
    argmax_error_mm = metrics.radial_errors(predictions.argmax_mm, truth_mm)
    visible, completed = cases.visible, cases.present & ~cases.visible
    subjects = cases.subjects

    def describe(counted, columns=slice(None)):
        errors = error_mm[..., columns]
        rates = {
            str(float(r)): statistics.share_interval((errors <= r).mean(axis=0), counted, subjects)
            for r in radii_mm
        }
        return metrics.summarise_errors(errors, counted, radii_mm) | {
            "d_mean_ci_mm": statistics.bootstrap_interval(errors.mean(axis=0), counted, subjects),
            "success_rate_ci": rates,
            "argmax_d_mean_mm": _average(argmax_error_mm[..., columns][:, counted]),
        }

    def describe_groups(names):
        return {
            name: describe(visible & (np.array(names) == name)[:, None])
            for name in sorted(set(names))
        }

    overall = describe(visible)
    ages = [name_age(case.age_weeks, age_groups_weeks) for case in cases.cases]
    near = error_mm <= confidence_radius_mm
    trust = (predictions.confidence, near, visible, subjects)
    return {
        "cases": len(cases),
        "subjects": len(set(subjects)),
        "landmarks": overall.pop("n"),
        **overall,
        "guess_d_mean_mm": _average(guess_error_mm[:, visible]),
        "annotators": _describe_annotators(cases.spread_mm[visible]),
        "truth": _compare_truth(predictions, cases, visible, subjects),
        "completed": describe(completed),
        "per_landmark": {
            label: describe(visible[:, i : i + 1], slice(i, i + 1)) | _describe_trust(*trust, i)
            for i, label in enumerate(labels)
        },
        "per_site": describe_groups([case.site or "unknown" for case in cases.cases]),
        "per_age_group": describe_groups(ages),
        "age_mean": _average_ages(error_mm.mean(axis=0), visible, ages, subjects),
        "confidence": _summarise_confidence(*trust)
        | {
            "radius_mm": confidence_radius_mm,
            "completed": _summarise_confidence(predictions.confidence, near, completed, subjects),
        },
        "region": summarise_region(predictions.radius_mm, error_mm, cases, labels, region_share)
        if region_share
        else None,
        "visibility": summarise_visibility(
            predictions.visibility.mean(axis=0),
            _arrange_shares(models),
            error_mm.mean(axis=0),
            cases,
            min_visible=min_visible,
        ),
        "completion": summarise_completion(
            predictions.points_mm.mean(axis=0),
            predictions.completed_mm.mean(axis=0),
            predictions.visibility.mean(axis=0),
            cases,
            mirror_index,
        ),
        "ela": _summarise_local(predictions, visible, labels, ela_radii_mm),
        "measurements": measured_faces.summarise_measurements(faces, subjects),
    }


def _arrange_models(parts: Sequence[Part]) -> list[tuple[Part, ...]]:
    """For each model the parts that it was tested on, which together have each case once."""
    groups: dict[tuple[str, ...], list[Part]] = {}
    for part in parts:
        groups.setdefault(tuple(case.name for case in part.cases.cases), []).append(part)
    names = [name for group in groups for name in group]
    if len(set(names)) < len(names):
        raise ValueError("expected parts of the same cases or of others, got some cases in two")
    counts = sorted({len(group) for group in groups.values()})
    if len(counts) > 1:
        raise ValueError(f"expected as many models on each case, got {counts}")
    return list(zip(*groups.values(), strict=True))


def average_shares(parts: Sequence[Part]) -> np.ndarray | None:
    """[L], the mean over models of `visible_share`; None where one of them has none."""
    shares = [part.visible_share for part in parts]
    return None if any(share is None for share in shares) else np.mean(shares, axis=0)


def _arrange_shares(models: Sequence[Sequence[Part]]) -> np.ndarray | None:
    """[N, L], what the shares of each case's landmarks were in training, the mean over models."""
    columns = [average_shares(parts) for parts in zip(*models, strict=True)]
    if any(share is None for share in columns):
        return None
    counts = [len(part.cases) for part in models[0]]
    return np.concatenate([np.tile(s, (n, 1)) for s, n in zip(columns, counts, strict=True)])


def _average(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def _describe_annotators(spread_mm: np.ndarray) -> dict | None:
    """How far annotators are apart on the points that two of them set, else None."""
    known = spread_mm[np.isfinite(spread_mm)]
    return {"n": int(known.size), "apart_mm": float(known.mean())} if known.size else None


def _compare_truth(
    predictions: Predictions, cases: PreparedCases, visible, subjects
) -> dict | None:
    """Of a phantom's visible points: how far the annotations, and the predictions, are from it.

    The first is the floor: what one would be measured with who found every true point. A model
    that learned an annotator's habits can come below it, on that annotator's cases.
    """
    known = visible & np.isfinite(cases.true_mm).all(axis=-1)
    if not known.any():
        return None
    floor_mm = metrics.radial_errors(cases.points_mm, cases.true_mm)
    true_mm = np.broadcast_to(cases.true_mm, predictions.points_mm.shape)
    error_mm = metrics.radial_errors(predictions.points_mm, true_mm).mean(axis=0)
    return {
        "n": int(known.sum()),
        "annotation_d_mean_mm": float(floor_mm[known].mean()),
        "annotation_d_mean_ci_mm": statistics.bootstrap_interval(floor_mm, known, subjects),
        "d_mean_mm": float(error_mm[known].mean()),
        "d_mean_ci_mm": statistics.bootstrap_interval(error_mm, known, subjects),
    }


def _describe_trust(confidence, near, counted, subjects, i: int) -> dict:
    """Share of landmark i's points that were near enough, and what was promised; [K, N, L]."""
    chosen, one = counted[:, i], slice(i, i + 1)
    return {
        "within_radius": _average(near[:, chosen, i]),
        "within_radius_ci": statistics.share_interval(
            near[..., one].mean(axis=0), counted[:, one], subjects
        ),
        "confidence_mean": _average(confidence[:, chosen, i]),
    }


def _summarise_confidence(confidence, near, counted, subjects) -> dict:
    """Whether confidences [K, N, L] keep their promise: bins of equal counts, the Brier score."""
    promised, within = confidence.mean(axis=0), near.mean(axis=0)
    bins = statistics.bin_chances(promised, within, counted, subjects)
    brier = float(np.mean((confidence - near)[:, counted] ** 2)) if bins else None
    return {"brier": brier, "bins": bins}


def name_age(weeks: float, ends: Sequence[float]) -> str:
    """'<24', '24-28', ..., '>=32' weeks, or 'unknown'."""
    if not np.isfinite(weeks):
        return "unknown"
    place = int(np.searchsorted(ends, weeks, side="right"))
    if place == 0:
        return f"<{ends[0]:g}"
    return f">={ends[-1]:g}" if place == len(ends) else f"{ends[place - 1]:g}-{ends[place]:g}"


def _average_ages(error_mm, visible, ages: Sequence[str], subjects) -> dict | None:
    """The mean over age groups, in which few old children count as much as many young ones.

    None where fewer than two groups are known.
    """
    known = (np.array(ages) != "unknown") & visible.any(axis=1)
    names = [name for name, one in zip(ages, known, strict=True) if one]
    if len(set(names)) < 2:
        return None
    who = [name for name, one in zip(subjects, known, strict=True) if one]
    mean, interval = statistics.mean_of_groups(error_mm[known], visible[known], names, who)
    return {"groups": len(set(names)), "d_mean_mm": mean, "d_mean_ci_mm": interval}


def _summarise_local(predictions: Predictions, visible, labels, radii_mm) -> dict:
    """Curves of the expected local accuracy: a landmark's is its mean over models and cases."""
    curves, limits = {}, []
    local_mm, guess_mm = (
        each.mean(axis=0, dtype=np.float64)  # [N, L, R]
        for each in (predictions.local_mm, predictions.local_guess_mm)
    )
    for i, label in enumerate(labels):
        known = visible[:, i] & np.isfinite(local_mm[:, i]).all(axis=-1)
        if known.any():
            curves[label] = local_mm[known, i].mean(axis=0)
            limits.append(guess_mm[known, i].mean(axis=0))

    def tidy(curve):
        return [round(float(v), 4) for v in curve]

    return {
        "radii_mm": tidy(radii_mm),
        "overall": tidy(np.mean(list(curves.values()), axis=0)) if curves else None,
        "guess": tidy(np.mean(limits, axis=0)) if limits else None,
        "per_landmark": {label: tidy(curve) for label, curve in curves.items()},
    }
