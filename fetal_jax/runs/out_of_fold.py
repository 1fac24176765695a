"""What a mass is worth and how far points are off, by cases with known landmarks.

Of a fold, by those of the other folds.
"""

from collections.abc import Sequence

import numpy as np

from fetal_jax import metrics
from fetal_jax.calibration import fit_calibration
from fetal_jax.conformal import Region, fit_region
from fetal_jax.data.cases import PreparedCases
from fetal_jax.runs.calibrations import Calibrations
from fetal_jax.runs.predictions import Predictions, recalibrate


def fit_points(
    tested: Sequence[tuple[PreparedCases, Predictions]], radius_mm: float, share: float
) -> Calibrations:
    """What a mass is worth: on all points that are there, for completed ones are found less well.

    And what a chance to be seen is worth, on all points of which it is known.

    Args:
      tested: cases, and what a model that was not trained on them finds.
      radius_mm: a confidence is the chance of lying within it.
      share: of points that a radius of their own is to hold; 0: no such radius.
    """
    mass, within, seen, visible = [], [], [], []
    for cases, predictions in tested:
        errors = metrics.radial_errors(predictions.points_mm, cases.points_mm)
        mass.append(predictions.mass[cases.present])
        within.append(errors[cases.present] <= radius_mm)
        known = cases.judged & np.isfinite(predictions.seen)
        seen.append(predictions.seen[known])
        visible.append(cases.visible[known])
    return Calibrations(
        fit_calibration(np.concatenate(mass), np.concatenate(within)),
        fit_calibration(np.concatenate(seen), np.concatenate(visible)),
        _fit_region(tested, share) if share else None,
    )


def _fit_region(tested: Sequence[tuple[PreparedCases, Predictions]], share: float) -> Region:
    errors = [metrics.radial_errors(p.points_mm, cases.points_mm) for cases, p in tested]
    return fit_region(
        np.concatenate(errors),
        np.concatenate([predictions.mass for _, predictions in tested]),
        np.concatenate([cases.present for cases, _ in tested]),
        [subject for cases, _ in tested for subject in cases.subjects],
        share,
    )


def calibrate_folds(
    tested: Sequence[tuple[PreparedCases, Predictions]], radius_mm: float, share: float
) -> list[Predictions]:
    """Each fold's predictions with confidences and radii by `fit_points` of the other folds.

    Neither the points that a confidence is judged by nor the cases that chose the checkpoint are
    among those that it was fitted to.
    """
    return [
        recalibrate(predictions, fit_points([*tested[:k], *tested[k + 1 :]], radius_mm, share))
        for k, (_, predictions) in enumerate(tested)
    ]
