"""Confidence as the share of points that it promises: a map's own mass, calibrated on other cases.

The mass of a map near its peak says which points are surer than others, but not how sure: a map
that follows a target of 3 mm width has a third of its mass within 4 mm of a peak that is right. So
the mass is turned into a probability by a logistic curve (Platt 1999, Advances in Large Margin
Classifiers), fitted where the truth is known.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.scipy.special import logit

SLOPE_SD = 0.25  # of the prior
LEAST = 1e-6  # of a mass and of its complement: logits stay finite


class Calibration(NamedTuple):
    """P(within the radius) = sigmoid(offset + slope · logit(mass)); by default the mass itself.

    n: how many points it was fitted to.
    """

    offset: float = 0.0
    slope: float = 1.0
    n: int = 0


def fit_calibration(mass: np.ndarray, within: np.ndarray, least: int = 20) -> Calibration:
    """The most likely curve, never falling, with a slope that few misses do not move far from 1.

    With hardly a miss the most likely slope is anything, often 0, which would give every point one
    and the same confidence. So the slope has a normal prior of mean 1 and sd `SLOPE_SD`, as strong
    as a few dozen points of both kinds.

    Args:
      mass: [n] in [0, 1], of points that can be seen and of others, in the shares in which they
        will be met: a curve of the former alone promises too much of the latter.
      within: [n] bool, whether the point was within the radius.
      least: with fewer points nothing is fitted.
    """
    mass, within = np.asarray(mass, float), np.asarray(within, bool)
    if mass.shape != within.shape or mass.ndim != 1:
        raise ValueError(f"expected two arrays [n], got {mass.shape} and {within.shape}")
    n, right = mass.size, int(within.sum())
    if n < least:
        return Calibration()
    x = scipy.special.logit(np.clip(mass, LEAST, 1 - LEAST))
    # Platt's targets: with no miss among n, the next may still be one
    y = np.where(within, (right + 1) / (right + 2), 1 / (n - right + 2))

    def measure(p):
        z = p[0] + p[1] * x
        error = scipy.special.expit(z) - y
        off = (p[1] - 1.0) / SLOPE_SD
        loss = np.sum(np.logaddexp(0, z) - y * z) + 0.5 * off**2
        return loss / n, np.array([np.sum(error), np.sum(error * x) + off / SLOPE_SD]) / n

    found = scipy.optimize.minimize(
        measure, [0.0, 1.0], jac=True, method="L-BFGS-B", bounds=[(None, None), (0.0, None)]
    )
    return Calibration(float(found.x[0]), float(found.x[1]), n)


def calibrate(mass: jax.Array, calibration: Calibration) -> jax.Array:
    """Probability that a point lies within the radius, of any shape, from the map's mass there."""
    mass = jnp.clip(mass, LEAST, 1 - LEAST)
    z = calibration.offset + calibration.slope * logit(mass)
    return jax.nn.sigmoid(z)
