"""Evaluation: predictions for cases with landmarks, their errors, and the files that say so."""

import csv
import io
from pathlib import Path

import numpy as np

from fetal_jax import metrics
from fetal_jax.io.files import write_atomically
from fetal_jax.io.markups import write_mrk_json
from fetal_jax.preprocess import PreparedCases
from fetal_jax.run_folder import write_json

CSV_COLUMNS = (
    "case,label,truth_x,truth_y,truth_z,prediction_x,prediction_y,prediction_z,"
    "error_mm,visible,confidence"
).split(",")


def summarise(
    prepared: PreparedCases,
    labels: list[str],
    found_mm: np.ndarray,
    argmax_mm: np.ndarray,
    guess_vox: np.ndarray,
    spacing_mm: float,
    radii_mm: list[float],
) -> dict:
    """The numbers of results.json.

    Args:
      prepared: N cases with their landmarks.
      found_mm, argmax_mm: [N, L, 3] RAS+ mm, the decoded points and the peaks' voxels.
      guess_vox: [L, 3] grid voxels, what a program that never looks at the image would say.
      spacing_mm: of the grid.
      radii_mm: of the success rates.

    Returns:
      A dict that JSON takes; visible landmarks at the top, the completed ones apart.
    """
    errors = metrics.radial_errors(found_mm, prepared.points_mm)  # [N, L]
    guess = metrics.radial_errors(
        np.broadcast_to(guess_vox, prepared.points_vox.shape), prepared.points_vox
    )
    visible, completed = prepared.visible, prepared.present & ~prepared.visible
    overall = metrics.summarise_errors(errors, visible, radii_mm)
    return {
        "cases": len(prepared),
        "landmarks": overall.pop("n"),
        **overall,
        "d_mean_ci_mm": metrics.bootstrap_interval(errors, visible, prepared.subjects),
        "argmax_d_mean_mm": metrics.summarise_errors(
            metrics.radial_errors(argmax_mm, prepared.points_mm), visible, radii_mm
        )["d_mean_mm"],
        "guess_d_mean_mm": metrics.summarise_errors(guess * spacing_mm, visible, radii_mm)[
            "d_mean_mm"
        ],
        "completed": metrics.summarise_errors(errors, completed, radii_mm),
        "per_landmark": {
            label: metrics.summarise_errors(errors[:, i], visible[:, i], radii_mm)
            for i, label in enumerate(labels)
        },
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


def write_results(
    workdir: Path,
    results: dict,
    prepared: PreparedCases,
    labels: list[str],
    found_mm: np.ndarray,
    confidence: np.ndarray,
) -> None:
    """predictions/, results.csv and, last, results.json, whose presence says that all is there."""
    names = [case.name for case in prepared.cases]
    write_predictions(workdir / "predictions", names, labels, found_mm, confidence)
    errors = metrics.radial_errors(found_mm, prepared.points_mm)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(CSV_COLUMNS)
    for n, name in enumerate(names):
        for i, label in enumerate(labels):
            there = prepared.present[n, i]
            table.writerow(
                [
                    name,
                    label,
                    *(f"{v:.4f}" if there else "" for v in prepared.points_mm[n, i]),
                    *(f"{v:.4f}" for v in found_mm[n, i]),
                    f"{errors[n, i]:.4f}" if there else "",
                    int(prepared.visible[n, i]),
                    f"{confidence[n, i]:.4f}",
                ]
            )
    write_atomically(workdir / "results.csv", text.getvalue().encode())
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
    )
