"""What a prediction is worth: errors in mm, and their summary with n and an interval."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def radial_errors(predicted_mm: np.ndarray, true_mm: np.ndarray) -> np.ndarray:
    """Distance in mm, [..., L], between points [..., L, 3]; NaN where either is NaN."""
    predicted_mm, true_mm = np.asarray(predicted_mm), np.asarray(true_mm)
    if predicted_mm.shape != true_mm.shape or predicted_mm.shape[-1:] != (3,):
        raise ValueError(
            f"expected two arrays [..., L, 3], got {predicted_mm.shape} and {true_mm.shape}"
        )
    return np.linalg.norm(predicted_mm - true_mm, axis=-1)


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
    subjects = np.asarray(subjects)
    names = [s for s in np.unique(subjects) if counted[subjects == s].any()]
    if len(names) < 2:
        return None
    kept = np.where(counted, errors, 0.0)
    sums = np.array([kept[subjects == s].sum() for s in names])
    counts = np.array([counted[subjects == s].sum() for s in names])
    found = stats.bootstrap(
        (sums, counts),
        lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=2000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return [float(found.low), float(found.high)]


def summarise_errors(
    errors: np.ndarray, counted: np.ndarray, radii_mm: Sequence[float]
) -> dict[str, object]:
    """n, mean, sd, median, 95th percentile and success rates of the counted errors.

    Where nothing is counted, n is 0 and the rest is None (JSON's null), never 0.
    """
    values = np.asarray(errors)[np.asarray(counted, bool)]
    n = int(values.size)

    def of(function):
        return float(function(values)) if n else None

    return {
        "n": n,
        "d_mean_mm": of(np.mean),
        "d_sd_mm": of(lambda v: np.std(v, ddof=1)) if n > 1 else None,
        "d_median_mm": of(np.median),
        "d_p95_mm": of(lambda v: np.percentile(v, 95)),
        "success_rate": {str(float(r)): of(lambda v, r=r: np.mean(v <= r)) for r in radii_mm},
    }
