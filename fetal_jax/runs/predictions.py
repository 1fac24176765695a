"""What a network predicts for cases with landmarks, and the files that keep it."""

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax.calibration import Calibration, calibrate
from fetal_jax.errors import InputError
from fetal_jax.io.files import write_atomically
from fetal_jax.io.markups import write_mrk_json


class Predictions(NamedTuple):
    """What a network predicts for N cases of L landmarks, in RAS+ mm.

    points_mm: [N, L, 3].
    argmax_mm: [N, L, 3], the peaks' voxels.
    mass: [N, L] in [0, 1], how sure the network seems.
    confidence: [N, L] in [0, 1], what came of it by calibration.
    local_mm, local_guess_mm: [N, L, R], expected local accuracy and what a random guesser gets, of
      `metrics.local_accuracy`; NaN where unknown.
    """

    points_mm: np.ndarray
    argmax_mm: np.ndarray
    mass: np.ndarray
    confidence: np.ndarray
    local_mm: np.ndarray
    local_guess_mm: np.ndarray


def write_predictions(path: Path, predictions: Predictions) -> None:
    """As .npz, to be pooled with those of other runs."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **predictions._asdict())
    write_atomically(path, buffer.getvalue())


def read_predictions(path: Path) -> Predictions:
    """Read what `write_predictions` wrote.

    Raises:
      InputError: no such file, no such arrays, or those of an older version.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:  # numpy leaves a bad file open
            arrays = dict(file)
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: expected the predictions of a run, got {error}") from None
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


def recalibrate(predictions: Predictions, calibration: Calibration) -> Predictions:
    """The same, with confidences by another calibration."""
    confidence = np.asarray(calibrate(predictions.mass, calibration))
    return predictions._replace(confidence=confidence)


def average_predictions(parts: Sequence[Predictions], calibration: Calibration) -> Predictions:
    """An ensemble on the same cases: mean points and masses; of its maps nothing is known.

    calibration: of the mean mass; a mean of calibrated confidences would not be one.
    """
    mean = Predictions(*(np.mean(arrays, axis=0) for arrays in zip(*parts, strict=True)))
    mean = mean._replace(local_mm=np.full_like(mean.local_mm, np.nan))
    return recalibrate(mean, calibration)


def write_landmark_files(
    folder: Path,
    cases: Sequence[str],
    labels: Sequence[str],
    points_mm: np.ndarray,
    confidence: np.ndarray,
) -> None:
    """Write FOLDER/CASE.mrk.json for each case, the confidence in the points' descriptions.

    Args:
      cases: N names.
      labels: L names.
      points_mm: [N, L, 3] RAS+.
      confidence: [N, L].
    """
    for case, points, shares in zip(cases, points_mm, confidence, strict=True):
        write_mrk_json(
            folder / f"{case}.mrk.json",
            dict(zip(labels, points, strict=True)),
            descriptions=describe_confidence(labels, shares),
        )


def describe_confidence(labels: Sequence[str], confidence: np.ndarray) -> dict[str, str]:
    """label -> 'confidence 0.93', for a landmark file; confidence [L]."""
    return {label: f"confidence {c:.3f}" for label, c in zip(labels, confidence, strict=True)}
