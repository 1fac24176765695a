"""What looks wrong with a finished run's test predictions, as `--mode=predict` would say it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import FrozenConfigDict

from fetal_jax.runs import aligned
from fetal_jax.runs.config_table import complete_config
from fetal_jax.runs.point_table import PointRows
from fetal_jax.runs.predictions import find_hidden
from fetal_jax.runs.review import describe_cases, list_reviews, sort_reviews
from fetal_jax.runs.usual import read_usual


def describe_tested(workdir: Path, points: PointRows, config: Mapping) -> dict[str, str]:
    """Case -> what looks wrong, of `review.describe_cases`, the most to gain first.

    A fold's cases are compared with what is usual in that fold's training cases.

    Args:
      points: the rows of results.csv; config: the run's.
    """
    rows, config = [], FrozenConfigDict(complete_config(config))
    min_visible = aligned.read_min_visible(config)
    for fold in dict.fromkeys(points.fold):
        of_fold = points.select(points.fold == fold)
        cases, labels = list(dict.fromkeys(of_fold.case)), list(dict.fromkeys(of_fold.label))
        hidden = find_hidden(of_fold.chance, min_visible)
        there = np.where(hidden[:, None], np.nan, of_fold.predicted_mm)
        rows += list_reviews(
            cases,
            labels,
            _arrange(there, of_fold, cases, labels),
            _arrange(of_fold.confidence, of_fold, cases, labels),
            read_usual(workdir / f"fold{fold}" if fold else workdir),
            min_confidence=config.evaluation.min_confidence,
            radius_mm=config.evaluation.confidence_radius_mm,
        )
    return describe_cases(sort_reviews(rows))


def _arrange(
    values: np.ndarray, rows: PointRows, cases: Sequence[str], labels: Sequence[str]
) -> np.ndarray:
    """[n, ...] of rows as [N, L, ...] of cases and labels."""
    arranged = np.full((len(cases), len(labels), *values.shape[1:]), np.nan)
    at = [{name: i for i, name in enumerate(names)} for names in (cases, labels)]
    arranged[[at[0][c] for c in rows.case], [at[1][c] for c in rows.label]] = values
    return arranged
