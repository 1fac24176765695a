"""The error on validation cases over a training, from the log that a run keeps of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax.errors import InputError
from fetal_jax.runs import aligned

PLATEAU_SHARE = 0.05  # of the error: what may still be gained where a training has come to its end


class LearningCurve(NamedTuple):
    """Validation d-mean in mm [S] after so many steps [S]."""

    steps: np.ndarray
    d_mean_mm: np.ndarray


def read_curve(workdir: Path) -> LearningCurve | None:
    """That of a run, of its second network if it has two; of a cross-validation the folds' mean.

    None where nothing was validated.

    Raises:
      InputError: a log that is none.
    """
    folds = sorted(workdir.glob("fold*/metrics.jsonl"))
    if folds:
        return average_curves([read_curve(path.parent) for path in folds])
    path = workdir / aligned.FOLDER / "metrics.jsonl"
    path = path if path.exists() else workdir / "metrics.jsonl"
    if not path.exists():
        return None
    try:
        records = [json.loads(line) for line in path.read_text().splitlines()]
        saved = [r for r in records if r.get("validation_d_mean_mm") is not None]
        values = [[r["step"], r["validation_d_mean_mm"]] for r in saved]
        steps, d_mean_mm = np.array(values, float).reshape(-1, 2).T
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: expected the log of a run, got {error!r}") from None
    return LearningCurve(steps.astype(int), d_mean_mm) if len(steps) else None


def average_curves(curves: Sequence[LearningCurve | None]) -> LearningCurve | None:
    """The mean at the steps that all have; None where one is missing or they share no step."""
    if not curves or any(curve is None for curve in curves):
        return None
    shared = sorted(set.intersection(*(set(curve.steps.tolist()) for curve in curves)))
    if not shared:
        return None
    values = [curve.d_mean_mm[np.searchsorted(curve.steps, shared)] for curve in curves]
    return LearningCurve(np.array(shared), np.mean(values, axis=0))


def still_falls(curve: LearningCurve) -> bool:
    """Whether the last quarter of the training still gained more than PLATEAU_SHARE."""
    before = curve.steps <= 0.75 * curve.steps[-1]
    if not before.any():
        return False
    return bool(curve.d_mean_mm[-1] < (1 - PLATEAU_SHARE) * curve.d_mean_mm[before][-1])
