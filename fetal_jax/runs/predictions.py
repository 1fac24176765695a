"""What a network predicts for cases with landmarks, and the files that keep it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax.calibration import calibrate
from fetal_jax.conformal import find_radius
from fetal_jax.errors import InputError
from fetal_jax.io.arrays import read_arrays, write_arrays
from fetal_jax.runs.calibrations import Calibrations


class Predictions(NamedTuple):
    """What a network predicts for N cases of L landmarks, in RAS+ mm.

    points_mm: [N, L, 3].
    argmax_mm: [N, L, 3], the peaks' voxels.
    mass: [N, L] in [0, 1], how sure the network seems.
    confidence: [N, L] in [0, 1], what came of it by calibration.
    seen: [N, L] in [0, 1], whether the network thinks that it can be seen.
    visibility: [N, L] in [0, 1], the chance that it can, what came of that by calibration.
    completed_mm: [N, L, 3], where the shape of a face expects it, given what can be seen. All three
      are NaN of a run that does not judge what can be seen, and of a case without a frame.
    local_mm, local_guess_mm: [N, L, R], expected local accuracy and what a random guesser gets, of
      `metrics.local_accuracy`; NaN where unknown.
    radius_mm: [N, L], within which of points_mm the truth is, as often as `conformal.Region` says:
      NaN of a run without one, infinite where too few subjects could tell.
    """

    points_mm: np.ndarray
    argmax_mm: np.ndarray
    mass: np.ndarray
    confidence: np.ndarray
    seen: np.ndarray
    visibility: np.ndarray
    completed_mm: np.ndarray
    local_mm: np.ndarray
    local_guess_mm: np.ndarray
    radius_mm: np.ndarray


def make_predictions(
    points_mm: np.ndarray,
    argmax_mm: np.ndarray,
    mass: np.ndarray,
    local_mm: np.ndarray | None = None,
    local_guess_mm: np.ndarray | None = None,
) -> Predictions:
    """Before anything is calibrated: a confidence is the mass, nothing is said of what can be seen.

    Args:
      as of `Predictions`; None for what is not known.
    """
    nowhere = np.full(points_mm.shape, np.nan)
    none = np.full((*mass.shape, 1), np.nan)
    return Predictions(
        points_mm,
        argmax_mm,
        mass,
        confidence=mass,
        seen=nowhere[..., 0],
        visibility=nowhere[..., 0],
        completed_mm=nowhere,
        local_mm=none if local_mm is None else local_mm,
        local_guess_mm=none if local_guess_mm is None else local_guess_mm,
        radius_mm=nowhere[..., 0],
    )


def write_predictions(path: Path, predictions: Predictions) -> None:
    """As .npz, to be pooled with those of other runs."""
    write_arrays(path, predictions._asdict())


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote; older ones have no radius.

    Raises:
      InputError: no such file, no such arrays, or those of an older version.
    """
    arrays = read_arrays(path, "the predictions of a run")
    if arrays.keys() == set(Predictions._fields) - {"radius_mm"}:
        arrays["radius_mm"] = np.full(arrays["mass"].shape, np.nan)
    if arrays.keys() != set(Predictions._fields):
        older = f": --mode=evaluate --workdir={path.parent} predicts an older run anew"
        raise InputError(
            f"{path}: expected the predictions of a run, {', '.join(Predictions._fields)}, "
            f"got {', '.join(arrays) or 'no array'}{older if 'argmax_mm' in arrays else ''}"
        )
    return Predictions(**arrays)


def join_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Those of some cases, then those of others: the cases of all, in order."""
    return Predictions(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def recalibrate(predictions: Predictions, calibrations: Calibrations) -> Predictions:
    """The same, with confidences, chances and radii by other calibrations."""
    return predictions._replace(
        confidence=np.asarray(calibrate(predictions.mass, calibrations.confidence)),
        visibility=np.asarray(calibrate(predictions.seen, calibrations.visibility)),
        radius_mm=np.asarray(find_radius(predictions.mass, calibrations.region)),
    )


def average_predictions(parts: Sequence[Predictions], calibrations: Calibrations) -> Predictions:
    """An ensemble on the same cases: mean points and masses; of its maps nothing is known.

    calibrations: of the mean mass; a mean of calibrated confidences would not be one.
    """
    mean = Predictions(*(np.mean(arrays, axis=0) for arrays in zip(*parts, strict=True)))
    mean = mean._replace(local_mm=np.full_like(mean.local_mm, np.nan))
    return recalibrate(mean, calibrations)


def find_hidden(visibility: np.ndarray, min_visible: float) -> np.ndarray:
    """Which landmarks count as hidden, of any shape: bool; where no chance is known, none does."""
    return np.isfinite(visibility) & (visibility < min_visible)


def visible_points(predictions: Predictions, min_visible: float) -> np.ndarray:
    """[N, L, 3] RAS+ mm, NaN of what counts as hidden."""
    hidden = find_hidden(predictions.visibility, min_visible)
    return np.where(hidden[..., None], np.nan, predictions.points_mm)
