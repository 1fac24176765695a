"""What a prediction is worth: errors in mm, and their summary with n and an interval."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy


def radial_errors(predicted_mm: np.ndarray, true_mm: np.ndarray) -> np.ndarray:
    """Distance in mm, [..., L], between points [..., L, 3]; NaN where either is NaN."""
    predicted_mm, true_mm = np.asarray(predicted_mm), np.asarray(true_mm)
    if predicted_mm.shape != true_mm.shape or predicted_mm.shape[-1:] != (3,):
        raise ValueError(
            f"expected two arrays [..., L, 3], got {predicted_mm.shape} and {true_mm.shape}"
        )
    return np.linalg.norm(predicted_mm - true_mm, axis=-1)


def local_accuracy(
    scores: jax.Array, distance_mm: jax.Array, radii_mm: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Expected local accuracy of one landmark of one example: an error in mm for each radius.

    How far off would the detector be if somebody had told it roughly where to look? At radius R it
    is the distance of the candidate with the highest score among those within R of the truth; of
    equal scores the lowest index counts, as in the decoder (the one met first, from the truth
    outwards, would make a constant map perfect). Where none is within R it is the nearest one.
    The curve never falls; the random-guesser limit is 0.75 R in an unbounded volume.

    Args:
      scores: [M], finite, of the candidates: all voxels of a map, or the boxes of a detector.
      distance_mm: [M], of the candidates to the true position.
      radii_mm: [R], ascending.

    Returns:
      The error [R], and what a random guesser gets: the mean distance of the candidates within R.
    """
    if scores.ndim != 1 or scores.shape != distance_mm.shape or radii_mm.ndim != 1:
        raise ValueError(
            "expected scores [M], distances [M] and radii [R], "
            f"got {scores.shape}, {distance_mm.shape} and {radii_mm.shape}"
        )
    m, shells = scores.size, radii_mm.size + 1  # the last shell is beyond all radii
    shell = jnp.searchsorted(radii_mm, distance_mm)
    top = jax.ops.segment_max(scores, shell, shells)
    index = jnp.where(scores == top[shell], jnp.arange(m), m)
    first = jax.ops.segment_min(index, shell, shells)

    def pick(a, b):
        better = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] < a[1]))
        return jnp.where(better, b[0], a[0]), jnp.where(better, b[1], a[1])

    _, chosen = jax.lax.associative_scan(pick, (top, first))
    chosen = chosen[:-1]
    nearest = jnp.argmin(distance_mm)
    count = jnp.cumsum(jax.ops.segment_sum(jnp.ones_like(distance_mm), shell, shells))[:-1]
    total = jnp.cumsum(jax.ops.segment_sum(distance_mm, shell, shells))[:-1]
    empty = count == 0
    error = distance_mm[jnp.where(empty, nearest, chosen)]
    guess = jnp.where(empty, distance_mm[nearest], total / jnp.maximum(count, 1))
    return error, guess


def mean_known(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """The mean along an axis of what is finite; NaN where nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(known.any(axis=axis), total / np.maximum(known.sum(axis=axis), 1), np.nan)


def measure_spread(readings_mm: np.ndarray) -> np.ndarray:
    """How far annotators are apart, in mm: the mean distance between two of them, [..., L].

    Args:
      readings_mm: [A, ..., L, 3], NaN where an annotator left a point out.

    Returns:
      NaN where fewer than two set the point.
    """
    pairs = [(i, j) for i in range(len(readings_mm)) for j in range(i)]
    if not pairs:
        return np.full(readings_mm.shape[1:-1], np.nan)
    return mean_known(np.array([radial_errors(readings_mm[i], readings_mm[j]) for i, j in pairs]))


def summarise_errors(
    errors: np.ndarray, counted: np.ndarray, radii_mm: Sequence[float]
) -> dict[str, object]:
    """n, mean, sd, median, 95th percentile and success rates of the counted errors.

    A point counts once however many models were tested on it: with the mean of their errors, and
    with the share of them that are within a radius.

    Args:
      errors: [N, L] mm; or [K, N, L], of K models on the same points.
      counted: [N, L] bool.
      radii_mm: of the success rates.

    Returns:
      Where nothing is counted, n is 0 and the rest is None (JSON's null), never 0.
    """
    each = np.asarray(errors)[..., np.asarray(counted, bool)]  # [n] or [K, n]
    values = each.mean(axis=0) if each.ndim > 1 else each
    n = int(values.size)

    def of(function):
        return float(function(values)) if n else None

    return {
        "n": n,
        "d_mean_mm": of(np.mean),
        "d_sd_mm": of(lambda v: np.std(v, ddof=1)) if n > 1 else None,
        "d_median_mm": of(np.median),
        "d_p95_mm": of(lambda v: np.percentile(v, 95)),
        "success_rate": {str(float(r)): of(lambda _, r=r: np.mean(each <= r)) for r in radii_mm},
    }


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """How often a positive has a higher score than a negative, ties counting half; NaN without one.

    The area under the receiver operating characteristic (Hanley & McNeil 1982, Radiology 143:29).

    Args:
      scores: [n].
      positive: [n] bool.
    """
    ranks, count = scipy.stats.rankdata(scores), int(positive.sum())
    pairs = count * (len(ranks) - count)
    if not pairs:
        return float("nan")
    return float((ranks[positive].sum() - count * (count + 1) / 2) / pairs)
