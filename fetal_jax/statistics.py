"""How sure a mean is, and whether two settings differ; subjects are what is drawn or exchanged."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

RESAMPLES = 9999


def subject_means(
    errors: np.ndarray, counted: np.ndarray, subjects: Sequence[str]
) -> tuple[list[str], np.ndarray]:
    """Mean error in mm of each subject that has a counted point.

    Args:
      errors: [N, L] mm.
      counted: [N, L] bool.
      subjects: N names.

    Returns:
      The subjects' names in order, and their means.
    """
    subjects = np.asarray(subjects)
    names = [str(s) for s in np.unique(subjects) if counted[subjects == s].any()]
    means = [errors[subjects == s][counted[subjects == s]].mean() for s in names]
    return names, np.array(means)


def bootstrap_interval(
    errors: np.ndarray, counted: np.ndarray, subjects: Sequence[str], *, level: float = 0.95
) -> list[float] | None:
    """Percentile bootstrap of the mean error, [low, high], resampling subjects.

    Points of one child are not independent, so a child is drawn whole.

    Args:
      errors: [N, L] mm.
      counted: [N, L] bool, which of them are in the mean.
      subjects: N names.

    Returns:
      None with fewer than two subjects that have a counted point.
    """
    ones = np.ones(np.shape(errors))
    return _resample_quotient(errors, ones, counted, subjects, level)


def bootstrap_ratio(
    errors: np.ndarray,
    others: np.ndarray,
    counted: np.ndarray,
    subjects: Sequence[str],
    *,
    level: float = 0.95,
) -> list[float] | None:
    """As `bootstrap_interval`, of the ratio of two mean errors of the same points, kept in pairs.

    Args:
      errors, others: [N, L] mm.
    """
    return _resample_quotient(errors, others, counted, subjects, level)


def _resample_quotient(above, below, counted, subjects, level) -> list[float] | None:
    """Percentile bootstrap over subjects of Σ above / Σ below, over the counted."""
    subjects = np.asarray(subjects)
    names = [s for s in np.unique(subjects) if counted[subjects == s].any()]
    if len(names) < 2:
        return None
    sums = [
        np.array([np.where(counted, values, 0.0)[subjects == s].sum() for s in names])
        for values in (above, below)
    ]
    found = stats.bootstrap(
        tuple(sums),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=2000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return [float(found.low), float(found.high)]


def paired_permutation(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p of the mean difference of paired values [n], by exchange within the pairs.

    Exact for few pairs, else from 9999 draws; 1 where all are equal or there is but one pair.
    Subjects are what is exchanged, for the points of one child are not independent.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"expected two arrays [n], got {a.shape} and {b.shape}")
    if a.size < 2 or np.array_equal(a, b):
        return 1.0
    found = stats.permutation_test(
        (a - b,),
        lambda d, axis: np.mean(d, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979, Scand. J. Stat. 6:65), in the order given."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected.tolist()
