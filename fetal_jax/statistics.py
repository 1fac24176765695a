"""How sure a mean is, and whether two settings differ; subjects are what is drawn or exchanged."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy

RESAMPLES = 9999
CHANCE_BINS = 5


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
    return _resample_quotient(errors, np.ones(np.shape(errors)), counted, subjects, level)


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
    sums = tuple(_sum_subjects(values, counted, subjects)[0] for values in (above, below))
    if len(sums[0]) < 2:
        return None
    found = scipy.stats.bootstrap(
        sums,
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=2000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return [float(found.low), float(found.high)]


def bootstrap_subjects(
    measure: Callable[[np.ndarray], float],
    subjects: Sequence[str],
    *,
    resamples: int = 500,
    level: float = 0.95,
) -> list[float] | None:
    """Percentile bootstrap of any number, [low, high], resampling subjects.

    Args:
      measure: indices of cases [n], some of them several times -> the number, NaN where they have
        none.
      subjects: N names, of all cases.

    Returns:
      None where fewer than half of the resamples have a number.
    """
    names, place = np.unique(np.asarray(subjects), return_inverse=True)
    cases = [np.flatnonzero(place == i) for i in range(len(names))]
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(names), size=(resamples, len(names)))
    values = np.array([measure(np.concatenate([cases[i] for i in each])) for each in drawn])
    values = values[np.isfinite(values)]
    if len(names) < 2 or 2 * len(values) < resamples:
        return None
    tail = 50 * (1 - level)
    return [float(v) for v in np.percentile(values, [tail, 100 - tail])]


def mean_of_groups(
    errors: np.ndarray, counted: np.ndarray, groups: Sequence[str], subjects: Sequence[str]
) -> tuple[float, list[float] | None]:
    """The mean over groups of cases of each one's mean error, and its interval over subjects.

    Each group counts alike, however many cases it has. A resample that lacks a group says nothing.

    Args:
      errors: [N, L] mm; counted: [N, L] bool; groups, subjects: N names.
    """
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.where(counted, errors, 0.0).sum(axis=1)
    counts = np.asarray(counted, float).sum(axis=1)

    def measure(cases: np.ndarray) -> float:
        totals, numbers = (
            np.bincount(place[cases], weights=each[cases], minlength=len(names))
            for each in (sums, counts)
        )
        return float(np.mean(totals / numbers)) if numbers.all() else float("nan")

    return measure(np.arange(len(place))), bootstrap_subjects(measure, subjects)


def share_interval(
    within: np.ndarray, counted: np.ndarray, subjects: Sequence[str], *, level: float = 0.95
) -> list[float] | None:
    """Interval of a share of points, [low, high], with subjects as what is drawn.

    Wilson's, with the effective number of points in place of their number: p (1 - p) over the
    variance of p between k subjects, at most the number itself, and with Student's quantile for
    k - 1 (Korn & Graubard 1998, Survey Methodology 24:193; with Wilson's interval: Franco et al.
    2019, J. Surv. Stat. Methodol. 7:334). Where all points are within, or none is, nothing tells
    whether the points of a child go together: they are taken to, as if each of k subjects had one.
    A bootstrap gives [1, 1] there, and next to it covers 75 to 85 % where this covers 95 %.

    Args:
      within: [N, L], whether a point is counted as within: bool, or a share in [0, 1] where it is
        the mean of several models.
      counted: [N, L] bool, which points the share is of.
      subjects: N names.

    Returns:
      None with fewer than two subjects that have a counted point.
    """
    sums, counts = _sum_subjects(np.asarray(within, float), counted, subjects)
    k, n = len(sums), counts.sum()
    if k < 2:
        return None
    p, effective = sums.sum() / n, _effective_points(sums, counts)
    together, upper = p in (0.0, 1.0), 0.5 + level / 2
    z = scipy.stats.norm.ppf(upper) if together else scipy.stats.t.ppf(upper, k - 1)
    z2 = z**2
    middle = (effective * p + z2 / 2) / (effective + z2)
    half = np.sqrt(z2 * (effective * p * (1 - p) + z2 / 4)) / (effective + z2)
    # at a share of 0 or 1 the end is the share itself, but for rounding
    return [float(np.clip(middle - half, 0, p)), float(np.clip(middle + half, p, 1))]


def effective_points(within: np.ndarray, counted: np.ndarray, subjects: Sequence[str]) -> float:
    """How many independent points would tell a share as well as these of at least two subjects do.

    p (1 - p) over the variance of the share p between subjects (Korn & Graubard 1998), at most the
    number of points; where all are within, or none is, the number of subjects.

    Args:
      within, counted: [N, L], and N names, as of `share_interval`.
    """
    return _effective_points(*_sum_subjects(np.asarray(within, float), counted, subjects))


def _effective_points(sums: np.ndarray, counts: np.ndarray) -> float:
    k, n = len(sums), counts.sum()
    p = sums.sum() / n
    if p in (0.0, 1.0):
        return float(k)
    # the linearised variance of a ratio of two sums over subjects
    variance = k / (k - 1) * np.sum((sums - p * counts) ** 2) / n**2
    return float(min(n, p * (1 - p) / variance)) if variance > 0 else float(n)


def _sum_subjects(values, counted, subjects) -> tuple[np.ndarray, np.ndarray]:
    """(sum, count) of the counted values [N, L] of each subject that has any."""
    names, place = np.unique(np.asarray(subjects), return_inverse=True)
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    np.add.at(sums, place, np.where(counted, values, 0.0).sum(axis=1))
    np.add.at(counts, place, np.asarray(counted, bool).sum(axis=1))
    return sums[counts > 0], counts[counts > 0]


def bin_chances(
    chance: np.ndarray, came: np.ndarray, counted: np.ndarray, subjects: Sequence[str]
) -> list[dict]:
    """Whether chances keep their promise: bins of about equal counts, the lowest first.

    Args:
      chance: [N, L] in [0, 1], what was promised.
      came: [N, L], whether it came true; a share in [0, 1] where it is the mean of several models.
      counted: [N, L] bool.
      subjects: N names.

    Returns:
      For each bin n, confidence (the mean chance), share (the mean of what came) and ci, the
      interval of that share.
    """
    values = chance[counted]
    if not values.size:
        return []
    edges = np.unique(np.quantile(values, np.linspace(0, 1, CHANCE_BINS + 1)[1:-1]))
    place = np.searchsorted(edges, chance, side="right")
    bins = []
    for i in range(len(edges) + 1):
        chosen = counted & (place == i)
        if chosen.any():
            share = float(came[chosen].mean())
            bins.append(
                {
                    "n": int(chosen.sum()),
                    "confidence": float(chance[chosen].mean()),
                    "share": share,
                    "ci": share_interval(came, chosen, subjects) or [share, share],
                }
            )
    return bins


class OneWay(NamedTuple):
    """A one-way analysis of variance with unequal numbers.

    between, within: mean squares; within is 0 where no group has two values. repeats: how many
    values a group has on average, m0 of Bland & Altman. groups: how many there are.
    """

    between: float
    within: float
    repeats: float
    groups: int


def analyse_one_way(
    values: np.ndarray, counted: np.ndarray, groups: Sequence[str] | np.ndarray
) -> OneWay | None:
    """Mean squares of the counted values between the groups, and within one.

    Args:
      values: [N, L]; counted: [N, L] bool; groups: N names.

    Returns:
      None with fewer than two groups that have a counted value.
    """
    sums, counts = _sum_subjects(values, counted, groups)
    k, n = len(sums), counts.sum()
    if k < 2:
        return None
    squares, _ = _sum_subjects(np.square(values), counted, groups)
    inside = float(np.sum(squares - sums**2 / counts))
    within = max(inside, 0.0) / (n - k) if n > k else 0.0
    apart = float(np.sum(counts * (sums / counts - sums.sum() / n) ** 2)) / (k - 1)
    return OneWay(apart, within, float((n - np.sum(counts**2) / n) / (k - 1)), k)


def variance_components(
    values: np.ndarray, counted: np.ndarray, subjects: Sequence[str]
) -> tuple[float, float] | None:
    """(between subjects, within a subject): variances of one value, from repeated ones.

    A one-way analysis of variance with unequal numbers, which limits of agreement want where a
    subject has several measurements (Bland & Altman 1999, Stat. Methods Med. Res. 8:135, section
    5; 2007, J. Biopharm. Stat. 17:571). With one value a subject it is the plain variance, all of
    it between. A negative estimate counts as 0.

    Args:
      values: [N, L]; counted: [N, L] bool; subjects: N names.

    Returns:
      None with fewer than two subjects that have a counted value.
    """
    found = analyse_one_way(values, counted, subjects)
    if found is None:
        return None
    return max(0.0, (found.between - found.within) / found.repeats), found.within


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
    found = scipy.stats.permutation_test(
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
