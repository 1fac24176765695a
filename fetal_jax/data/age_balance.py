"""How often each case trains, so that few children of an age are not drowned by the many of others.

The study names it as a limitation: most of its children are of 24 to 30 weeks.
"""

from collections.abc import Sequence

import numpy as np

SMOOTHING_WEEKS = 1.5  # sd of the kernel: as far as a face of one age tells of another
MOST = 4.0  # times the mean: a lone case is not to be learned by heart


def weigh_ages(ages_weeks: Sequence[float]) -> np.ndarray:
    """[N] weights of mean 1 for cases of N gestational ages: the inverse of how many are near.

    The density is smoothed by a gaussian; a weight is at most MOST. A case of unknown age counts 1.
    """
    ages = np.asarray(ages_weeks, np.float64)
    weights, known = np.ones(len(ages)), np.isfinite(ages)
    if known.any():
        apart = (ages[known][:, None] - ages[known][None]) / SMOOTHING_WEEKS
        weights[known] = _cap(1.0 / np.exp(-0.5 * apart**2).sum(axis=1))
    return weights


def _cap(weights: np.ndarray) -> np.ndarray:
    """Weights of mean 1, in proportion to those given, where that makes none larger than MOST."""
    for _ in range(len(weights)):  # each round settles one or more
        weights = weights / weights.mean()
        if weights.max() <= MOST * (1 + 1e-9):
            break
        held = weights >= MOST
        rest = (len(weights) - MOST * held.sum()) / weights[~held].sum()
        weights = np.where(held, MOST, weights * rest)
    return weights
