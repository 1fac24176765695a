"""A radius for each point that holds the truth as often as it says, in the mean over new scans.

Conformal prediction (Vovk, Gammerman, Shafer 2005, Algorithmic Learning in a Random World): errors
on cases that nothing was fitted to say how large errors will be, whatever their distribution. Each
is divided by its scale, so that a radius is larger where errors are (locally weighted scores: Lei
et al. 2018, Distribution-free predictive inference for regression, J. Am. Stat. Assoc. 113:1094).

A child's points go together: n of them say less than n of n children. A level of (1 + 1/n) times
the share, which n independent scores want, becomes (1 + 1/m) times, with their effective number m.
Simulated with 6 to 100 children, a share of 0.9 holds 90 to 93 % of new children's points, whether
a child's points have nothing in common or nearly everything, and where 5 % of the scans are lost;
n in place of m holds down to 85. A level of 1 + 1/(number of children) times the share, which no
distribution can break (Dunn, Wasserman, Ramdas 2023, J. Am. Stat. Assoc. 118:2491), holds up to 99
by the largest error of all, and with fewer than 9 children has no radius.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logit
from scipy import special

from fetal_jax import statistics
from fetal_jax.calibration import LEAST

FEWEST_SUBJECTS = 6  # with fewer nobody knows how much their points go together
FOLDS = 20  # of the subjects, each scored by scales of the others
LEAST_ERROR_MM = 0.01  # logarithms of errors stay finite
UPPER = 1.28  # sds above the mean of a normal distribution are nine tenths of it
SPREAD_POINTS = 20  # how many of a landmark's points weigh as much as all landmarks' spread
LEAST_SPREAD = 1e-3  # of logits within a landmark, for a slope


class Scale(NamedTuple):
    """exp(log_mm[landmark] - slope · logit(mass)) mm: how large errors are, of ten the ninth.

    log_mm: of L landmarks.
    slope: 0 or more; a surer map is not farther off.
    low, high: the logits met; beyond them the scale is that at the end.
    """

    log_mm: tuple[float, ...]
    slope: float = 0.0
    low: float = 0.0
    high: float = 0.0


class Region(NamedTuple):
    """The radius of a point is `size` times its scale.

    share: of points that are to lie within their radius.
    size: infinite where too few subjects say how far off points are.
    subjects: whose points it was fitted to.
    """

    share: float
    size: float
    scale: Scale
    subjects: int


def enough_subjects(share: float) -> int:
    """How many subjects tell a radius, whatever their points have in common; fewer often do.

    With so many the largest score seen is large enough, were the points of each as one.
    """
    return max(FEWEST_SUBJECTS, math.ceil(round(share / (1 - share), 9)))


def fit_region(
    error_mm: np.ndarray,
    mass: np.ndarray,
    counted: np.ndarray,
    subjects: Sequence[str],
    share: float,
) -> Region:
    """The region by the errors in N cases that nothing was fitted to.

    Args:
      error_mm: [N, L].
      mass: [N, L] in [0, 1], how sure the network seems, as of `calibration.calibrate`.
      counted: [N, L] bool, which points are known: those that can be seen and others, in the shares
        in which they will be met.
      subjects: N names; each counts alike.
      share: of points that are to lie within their radius, between 0 and 1.

    Raises:
      ValueError: shapes do not agree, or the share is none.
    """
    if not error_mm.shape == mass.shape == counted.shape or error_mm.ndim != 2:
        raise ValueError(
            f"expected three arrays [N, L], got {error_mm.shape}, {mass.shape}, {counted.shape}"
        )
    if not 0 < share < 1:
        raise ValueError(f"expected a share between 0 and 1, got {share}")
    error_mm = np.where(counted, error_mm, 1.0)
    scale = fit_scale(error_mm, mass, counted)
    names, place = np.unique(np.asarray(subjects), return_inverse=True)
    who = np.broadcast_to(place[:, None], counted.shape)[counted]
    number = len(np.unique(who))
    if number < FEWEST_SUBJECTS:
        return Region(share, math.inf, scale, number)
    score = np.empty(error_mm.shape)
    for fold in range(min(FOLDS, len(names))):
        own = place % min(FOLDS, len(names)) == fold
        others = fit_scale(error_mm[~own], mass[~own], counted[~own])
        score[own] = error_mm[own] / _scale_mm(others, mass[own])
    weights = 1 / np.bincount(who)[who]
    size = _weighted_quantile(score[counted], weights, share)
    points = statistics.effective_points(score <= size, counted, subjects)
    level = share * (1 + 1 / max(points, number))
    if level > 1 + 1e-9:
        return Region(share, math.inf, scale, number)
    return Region(share, _weighted_quantile(score[counted], weights, level), scale, number)


def fit_scale(error_mm: np.ndarray, mass: np.ndarray, counted: np.ndarray) -> Scale:
    """How large the larger ones of the counted errors [N, L] are, by a regression of logarithms.

    The mean and, above it, `UPPER` standard deviations of the half that lies there: errors near 0
    tell nothing of large ones. So the radius of a landmark that is always as far off is hardly more
    than that, and one that is seldom off, but then far, has a radius that holds these.

    The slope is that within landmarks. A landmark's own mean is shrunk towards the mean of all by
    what of its variance between landmarks is not chance (James & Stein; Efron & Morris 1975, J. Am.
    Stat. Assoc. 70:311), so that one with few points has the scale of the others.
    """
    length = counted.shape[1]
    if not counted.any():
        return Scale((0.0,) * length)
    x = special.logit(np.clip(mass, LEAST, 1 - LEAST))
    y = np.log(np.maximum(error_mm, LEAST_ERROR_MM))
    low, high = float(x[counted].min()), float(x[counted].max())
    n = counted.sum(axis=0)

    def landmark_means(values):
        return np.where(counted, values, 0.0).sum(axis=0) / np.maximum(n, 1)

    away_x = np.where(counted, x - landmark_means(x), 0.0)
    spread = np.sum(away_x**2)
    told = spread > LEAST_SPREAD**2 * n.sum()  # else only rounding differs
    falls = -np.sum(away_x * np.where(counted, y, 0.0)) / spread if told else 0.0
    slope = max(0.0, float(falls))
    rest = y + slope * x
    middle = rest[counted].mean()
    parts = statistics.variance_components(rest.T, counted.T, [str(i) for i in range(length)])
    between, within = parts if parts and n.max() > 1 else (0.0, 0.0)  # one value tells no chance
    own = n * between
    trust = np.divide(own, own + within, out=np.zeros(length), where=own > 0)
    mean = middle + trust * (landmark_means(rest) - middle)
    above = np.where(counted, np.maximum(rest - mean, 0.0), 0.0) ** 2
    all_above = above.sum() / n.sum()
    half = (SPREAD_POINTS * all_above + above.sum(axis=0)) / (SPREAD_POINTS + n)
    log_mm = mean + UPPER * np.sqrt(2 * half)
    return Scale(tuple(map(float, log_mm)), slope, low, high)


def _scale_mm(scale: Scale, mass: np.ndarray) -> np.ndarray:
    x = np.clip(special.logit(np.clip(mass, LEAST, 1 - LEAST)), scale.low, scale.high)
    return np.exp(np.array(scale.log_mm) - scale.slope * x)


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    """The least value that has at least this share of the weight, or the largest of all."""
    order = np.argsort(values, kind="stable")
    summed = np.cumsum(weights[order]) / weights.sum()
    at = int(np.searchsorted(summed, level - 1e-9))
    return float(values[order[min(at, len(order) - 1)]])


def find_radius(mass: jax.Array, region: Region | None) -> jax.Array:
    """The radius in mm of points [..., L], infinite where too few subjects said anything.

    Args:
      mass: [..., L] in [0, 1].
      region: None: NaN, nothing is known.
    """
    x = logit(jnp.clip(mass, LEAST, 1 - LEAST))
    if region is None:
        return jnp.full_like(x, jnp.nan)
    scale = region.scale
    log_mm = jnp.broadcast_to(jnp.asarray(scale.log_mm, x.dtype), x.shape)
    return region.size * jnp.exp(log_mm - scale.slope * jnp.clip(x, scale.low, scale.high))
