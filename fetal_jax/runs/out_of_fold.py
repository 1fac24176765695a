"""What a mass is worth, by cases with known landmarks; of a fold, by those of the other folds."""

from collections.abc import Sequence

import numpy as np

from fetal_jax import metrics
from fetal_jax.calibration import Calibration, fit_calibration
from fetal_jax.data.cases import PreparedCases
from fetal_jax.runs.predictions import Predictions, recalibrate


def fit_points(
    tested: Sequence[tuple[PreparedCases, Predictions]], radius_mm: float
) -> Calibration:
    """What a mass is worth: on all points that are there, for completed ones are found less well.

    Args:
      tested: cases, and what a model that was not trained on them finds.
      radius_mm: a confidence is the chance of lying within it.
    """
    mass, within = [], []
    for cases, predictions in tested:
        errors = metrics.radial_errors(predictions.points_mm, cases.points_mm)
        mass.append(predictions.mass[cases.present])
        within.append(errors[cases.present] <= radius_mm)
    return fit_calibration(np.concatenate(mass), np.concatenate(within))


def calibrate_folds(
    tested: Sequence[tuple[PreparedCases, Predictions]], radius_mm: float
) -> list[Predictions]:
    """Each fold's predictions with confidences by `fit_points` of the other folds.

    Neither the points that a confidence is judged by nor the cases that chose the checkpoint are
    among those that it was fitted to.
    """
    return [
        recalibrate(predictions, fit_points([*tested[:k], *tested[k + 1 :]], radius_mm))
        for k, (_, predictions) in enumerate(tested)
    ]
