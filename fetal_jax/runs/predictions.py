"""Evaluation: predictions for cases with landmarks, their errors, and the files that say so."""

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from fetal_jax import metrics
from fetal_jax.data.cases import PreparedCases
from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically
from fetal_jax.io.markups import write_mrk_json
from fetal_jax.io.tables import write_table
from fetal_jax.runs import measurement_table
from fetal_jax.runs.folder import write_json
from fetal_jax.runs.point_table import CSV_COLUMNS

CONFIDENCE_BINS = 5


class Measured(NamedTuple):
    """What a network found in N cases, in RAS+ mm, and its local accuracy, NaN where unknown."""

    found_mm: np.ndarray  # [N, L, 3]
    argmax_mm: np.ndarray  # [N, L, 3], the peaks' voxels
    confidence: np.ndarray  # [N, L]
    local_mm: np.ndarray  # [N, L, R], of `metrics.local_accuracy`
    local_guess_mm: np.ndarray  # [N, L, R]


def write_measured(path: Path, measured: Measured) -> None:
    """As .npz, to be pooled with those of other runs."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **measured._asdict())
    write_atomically(path, buffer.getvalue())


def read_measured(path: Path) -> Measured:
    """Raises InputError where the file is missing or is none of `write_measured`."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as arrays:  # numpy leaves a bad file open
            return Measured(**arrays)
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected what a run found, got {error}") from None


def join_measured(parts: list[Measured]) -> Measured:
    return Measured(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def average_measured(parts: list[Measured]) -> Measured:
    """An ensemble on the same cases: mean points and confidences; of its maps nothing is known."""
    found, argmax, confidence, local, guess = (
        np.mean(arrays, axis=0) for arrays in zip(*parts, strict=True)
    )
    return Measured(found, argmax, confidence, np.full_like(local, np.nan), guess)


def guess_errors(prepared: PreparedCases, guess_mm: np.ndarray) -> np.ndarray:
    """[N, L] mm: errors of what a program that never looks at the image would say.

    Args:
      guess_mm: [L, 3], mean position of the training cases in mm from the grid's first voxel.
    """
    spacing_mm = prepared.grids[0].spacing_mm
    guess_vox = np.broadcast_to(np.asarray(guess_mm) / spacing_mm, prepared.points_vox.shape)
    return metrics.radial_errors(guess_vox, prepared.points_vox) * spacing_mm


def summarise(
    prepared: PreparedCases,
    labels: list[str],
    measured: Measured,
    guess_mm: np.ndarray,
    *,
    radii_mm: list[float],
    ela_radii_mm: np.ndarray,
    age_groups_weeks: list[float],
    confidence_radius_mm: float,
    min_confidence: float,
) -> dict:
    """The numbers of results.json.

    Args:
      prepared: N cases with their landmarks.
      measured: of these cases.
      guess_mm: [N, L] of `guess_errors`.
      radii_mm: of the success rates.
      ela_radii_mm: [R], of the local accuracy.
      age_groups_weeks: where one group of gestational ages ends and the next begins.
      confidence_radius_mm: a confidence is the chance of lying within it.
      min_confidence: of `measurement_table.measure_predictions`.

    Returns:
      A dict that JSON takes; visible landmarks at the top, the completed ones apart.
    """
    errors = metrics.radial_errors(measured.found_mm, prepared.points_mm)  # [N, L]
    visible, completed = prepared.visible, prepared.present & ~prepared.visible
    subjects = prepared.subjects

    def describe(values, counted):
        found = metrics.summarise_errors(values, counted, radii_mm)
        return found | {"d_mean_ci_mm": metrics.bootstrap_interval(values, counted, subjects)}

    def mean(values):
        return float(values[visible].mean()) if visible.any() else None

    overall = describe(errors, visible)
    spread = prepared.spread_mm[visible & np.isfinite(prepared.spread_mm)]
    return {
        "cases": len({case.name for case in prepared.cases}),
        "subjects": len(set(subjects)),
        "landmarks": overall.pop("n"),
        **overall,
        "argmax_d_mean_mm": mean(metrics.radial_errors(measured.argmax_mm, prepared.points_mm)),
        "guess_d_mean_mm": mean(guess_mm),
        "annotators": {"n": int(spread.size), "apart_mm": float(spread.mean())}
        if spread.size
        else None,
        "completed": describe(errors, completed),
        "per_landmark": {
            label: describe(errors[:, i : i + 1], visible[:, i : i + 1])
            | _describe_trust(
                errors[visible[:, i], i] <= confidence_radius_mm,
                measured.confidence[visible[:, i], i],
            )
            for i, label in enumerate(labels)
        },
        "per_site": {
            site: describe(errors, visible & chosen[:, None])
            for site, chosen in _group([case.site or "unknown" for case in prepared.cases])
        },
        "per_age_group": {
            group: describe(errors, visible & chosen[:, None])
            for group, chosen in _group(
                [_name_age(case.age_weeks, age_groups_weeks) for case in prepared.cases]
            )
        },
        "confidence": _summarise_confidence(
            measured.confidence, errors <= confidence_radius_mm, visible, subjects
        )
        | {"radius_mm": confidence_radius_mm},
        "ela": _summarise_local(measured, visible, labels, ela_radii_mm),
        "measurements": measurement_table.summarise_measurements(
            measurement_table.measure_cases(
                prepared,
                measured.found_mm,
                measured.confidence,
                labels,
                min_confidence=min_confidence,
            ),
            subjects,
        ),
    }


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
            interval = metrics.bootstrap_interval(within.astype(float), chosen, subjects)
            bins.append(
                {
                    "n": int(chosen.sum()),
                    "confidence": float(confidence[chosen].mean()),
                    "share": share,
                    "ci": interval or [share, share],
                }
            )
    return {"brier": float(np.mean((values - within[counted]) ** 2)), "bins": bins}


def _group(names: list[str]) -> list[tuple[str, np.ndarray]]:
    return [(name, np.array(names) == name) for name in sorted(set(names))]


def _name_age(weeks: float, ends: list[float]) -> str:
    """'<24', '24-28', ..., '>=32' weeks, or 'unknown'."""
    if not np.isfinite(weeks):
        return "unknown"
    place = int(np.searchsorted(ends, weeks, side="right"))
    if place == 0:
        return f"<{ends[0]:g}"
    return f">={ends[-1]:g}" if place == len(ends) else f"{ends[place - 1]:g}-{ends[place]:g}"


def _summarise_local(measured, visible, labels, radii_mm) -> dict:
    """Curves of the expected local accuracy: a landmark's is its mean over the cases."""
    curves, limits = {}, []
    for i, label in enumerate(labels):
        chosen = visible[:, i]
        known = chosen & np.isfinite(measured.local_mm[:, i]).all(axis=-1)
        if known.any():
            curves[label] = measured.local_mm[known, i].mean(axis=0, dtype=np.float64)
            limits.append(measured.local_guess_mm[known, i].mean(axis=0, dtype=np.float64))

    def tidy(curve):
        return [round(float(v), 4) for v in curve]

    return {
        "radii_mm": tidy(radii_mm),
        "overall": tidy(np.mean(list(curves.values()), axis=0)) if curves else None,
        "guess": tidy(np.mean(limits, axis=0)) if limits else None,
        "per_landmark": {label: tidy(curve) for label, curve in curves.items()},
    }


def write_predictions(
    folder: Path, cases: list[str], labels: list[str], found_mm: np.ndarray, confidence: np.ndarray
) -> None:
    """One CASE.mrk.json a case, points [N, L, 3] RAS+ mm, the confidence in the description."""
    for case, points, shares in zip(cases, found_mm, confidence, strict=True):
        write_mrk_json(
            folder / f"{case}.mrk.json",
            dict(zip(labels, points, strict=True)),
            descriptions=describe_confidence(labels, shares),
        )


def describe_confidence(labels: list[str], confidence: np.ndarray) -> dict[str, str]:
    """label -> 'confidence 0.93', for a landmark file."""
    return {label: f"confidence {c:.3f}" for label, c in zip(labels, confidence, strict=True)}


def write_points(
    path: Path, labels: list[str], parts: list[tuple[str, PreparedCases, Measured]]
) -> None:
    """results.csv: a row for each case and landmark of each part (fold, cases, predictions)."""

    def rows():
        for fold, prepared, measured in parts:
            errors = metrics.radial_errors(measured.found_mm, prepared.points_mm)
            for n, case in enumerate(prepared.cases):
                age = f"{case.age_weeks:g}" if np.isfinite(case.age_weeks) else ""
                for i, label in enumerate(labels):
                    there = prepared.present[n, i]
                    yield [
                        case.name,
                        label,
                        *(f"{v:.4f}" if there else "" for v in prepared.points_mm[n, i]),
                        *(f"{v:.4f}" for v in measured.found_mm[n, i]),
                        f"{errors[n, i]:.4f}" if there else "",
                        int(prepared.visible[n, i]),
                        f"{measured.confidence[n, i]:.4f}",
                        case.subject,
                        case.site,
                        age,
                        fold,
                    ]

    write_table(path, CSV_COLUMNS, rows())


def write_measurements(
    path: Path,
    labels: list[str],
    parts: list[tuple[str, PreparedCases, Measured]],
    *,
    min_confidence: float,
) -> None:
    """measurements.csv of each part (fold, cases, predictions); none where labels allow none."""
    faces = [
        (
            fold,
            prepared,
            measurement_table.measure_cases(
                prepared, found.found_mm, found.confidence, labels, min_confidence=min_confidence
            ),
        )
        for fold, prepared, found in parts
    ]
    if faces[0][2].measurements:
        measurement_table.write_measurements(path, faces)


def write_results(
    workdir: Path,
    results: dict,
    prepared: PreparedCases,
    labels: list[str],
    measured: Measured,
    *,
    min_confidence: float,
) -> None:
    """predictions/, the tables and, last, results.json, whose presence says that all is there."""
    names = [case.name for case in prepared.cases]
    write_predictions(
        workdir / "predictions", names, labels, measured.found_mm, measured.confidence
    )
    parts = [("", prepared, measured)]
    write_points(workdir / "results.csv", labels, parts)
    write_measurements(workdir / "measurements.csv", labels, parts, min_confidence=min_confidence)
    write_measured(workdir / "predictions.npz", measured)
    write_json(workdir / "results.json", results)


def format_results(results: dict) -> str:
    """The result in a few lines, for a person."""
    if not results["landmarks"]:
        return f"{results['cases']} test cases, none with a visible landmark: nothing measured"
    rates = ", ".join(
        f"{100 * share:.0f} % within {float(r):g} mm"
        for r, share in results["success_rate"].items()
    )
    interval = results["d_mean_ci_mm"]
    between = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    per = {k: v["d_mean_mm"] for k, v in results["per_landmark"].items() if v["n"]}
    best, worst = min(per, key=per.get), max(per, key=per.get)
    return (
        f"{results['cases']} test cases, {results['landmarks']} visible landmarks\n"
        f"  d-mean {results['d_mean_mm']:.2f} mm{between}, median {results['d_median_mm']:.2f} mm\n"
        f"  {rates}\n"
        f"  best {best} {per[best]:.2f} mm, worst {worst} {per[worst]:.2f} mm\n"
        f"  a guess that ignores the image: {results['guess_d_mean_mm']:.2f} mm"
        + (
            f"\n  two annotators are {annotators['apart_mm']:.2f} mm apart"
            if (annotators := results["annotators"])
            else ""
        )
    )
