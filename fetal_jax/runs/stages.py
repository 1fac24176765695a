"""What each look of a run that looks twice found in its test cases: kept, pooled and summarised."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax import metrics, statistics
from fetal_jax.data.cases import PreparedCases
from fetal_jax.errors import InputError
from fetal_jax.io.arrays import read_arrays, write_arrays
from fetal_jax.runs import second_look
from fetal_jax.runs.second_look import Look

STAGES_NPZ = "stages.npz"
FIRST, SHAPE = "first network", "mean shape in the frame"


class StagePoints(NamedTuple):
    """N cases at S stages: the first network, the mean shape in its frame, each look of the second.

    points_mm: [N, S, L, 3] RAS+.
    agreeing: [N, S], the share of the points before that agreed with the frame; NaN of the first
      two.
    framed: [N] bool, whether the first network's points gave a frame to trust.
    """

    points_mm: np.ndarray
    agreeing: np.ndarray
    framed: np.ndarray


def list_stages(first_mm: np.ndarray, looks: Sequence[Look]) -> StagePoints:
    """Of what the first network found, [N, L, 3] RAS+, and the looks of the second."""
    unknown = np.full(len(first_mm), np.nan)
    return StagePoints(
        np.stack([first_mm, looks[0].shape_mm, *(look.points_mm for look in looks)], axis=1),
        np.stack([unknown, unknown, *(look.agreeing for look in looks)], axis=1),
        second_look.has_frame(looks),
    )


def summarise_stages(parts: Sequence[tuple[PreparedCases, StagePoints]]) -> list[dict]:
    """What each stage adds, on the visible landmarks of all parts, for results.json.

    The mean shape in the frame of the first look is the guess that the second network must beat;
    the share of points that agreed with a look's frame says how far to trust it.
    """
    stages = StagePoints(*map(np.concatenate, zip(*(one for _, one in parts), strict=True)))
    visible, points_mm, true_mm = (
        np.concatenate([getattr(cases, name) for cases, _ in parts])
        for name in ("visible", "points_mm", "true_mm")
    )
    subjects = [subject for cases, _ in parts for subject in cases.subjects]
    count = stages.points_mm.shape[1]
    names = [FIRST, SHAPE, *(f"second network, look {n}" for n in range(1, count - 1))]
    rows = []
    for number, name in enumerate(names):
        found_mm = stages.points_mm[:, number]
        error_mm = metrics.radial_errors(found_mm, points_mm)
        known = visible & np.isfinite(true_mm).all(axis=-1)
        row = {
            "stage": name,
            "d_mean_mm": float(error_mm[visible].mean()) if visible.any() else None,
            "d_mean_ci_mm": statistics.bootstrap_interval(error_mm, visible, subjects),
            "d_median_mm": float(np.median(error_mm[visible])) if visible.any() else None,
            "truth_d_mean_mm": (
                float(metrics.radial_errors(found_mm, true_mm)[known].mean())
                if known.any()
                else None
            ),
        }
        if number >= 2:
            row["agreeing"] = float(stages.agreeing[:, number].mean())
        rows.append(row)
    rows[0]["no_frame"] = int((~stages.framed).sum())
    return rows


def write_stages(workdir: Path, stages: StagePoints) -> None:
    """WORKDIR/stages.npz, to be pooled with those of other folds."""
    write_arrays(workdir / STAGES_NPZ, stages._asdict())


def read_stages(workdir: Path) -> StagePoints | None:
    """None where the run looked once.

    Raises:
      InputError: another file of that name.
    """
    path = workdir / STAGES_NPZ
    if not path.exists():
        return None
    arrays = read_arrays(path, "what each look of a run found")
    if arrays.keys() != set(StagePoints._fields):
        raise InputError(f"{path}: expected what each look of a run found, got {', '.join(arrays)}")
    return StagePoints(**arrays)
