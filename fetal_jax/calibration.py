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
from jax.scipy.special import logit
from scipy import optimize, special

LEAST = 1e-6  # of a mass and of its complement: logits stay finite


class Calibration(NamedTuple):
    """P(within the radius) = sigmoid(offset + slope · logit(mass)); as it stands, the mass itself.

    n: how many points it was fitted to.
    """

    offset: float = 0.0
    slope: float = 1.0
    n: int = 0


def fit_calibration(mass: np.ndarray, within: np.ndarray, least: int = 20) -> Calibration:
    """The most likely curve, never falling.

    Args:
      mass: [n] in [0, 1], confidences as the network gives them.
      within: [n] bool, whether the point was within the radius.
      least: with fewer points nothing is fitted.
    """
    mass, within = np.asarray(mass, float), np.asarray(within, bool)
    if mass.shape != within.shape or mass.ndim != 1:
        raise ValueError(f"expected two arrays [n], got {mass.shape} and {within.shape}")
    n, right = mass.size, int(within.sum())
    if n < least:
        return Calibration()
    x = special.logit(np.clip(mass, LEAST, 1 - LEAST))
    # Platt's targets: with no miss among n, the next may still be one
    y = np.where(within, (right + 1) / (right + 2), 1 / (n - right + 2))

    def measure(p):
        z = p[0] + p[1] * x
        error = special.expit(z) - y
        loss = np.mean(np.logaddexp(0, z) - y * z)
        return loss, np.array([np.mean(error), np.mean(error * x)])

    found = optimize.minimize(
        measure, [0.0, 1.0], jac=True, method="L-BFGS-B", bounds=[(None, None), (0.0, None)]
    )
    return Calibration(float(found.x[0]), float(found.x[1]), n)


def calibrate(mass: jax.Array, calibration: Calibration) -> jax.Array:
    """Probability that a point lies within the radius, of any shape, from the map's mass there."""
    mass = jnp.clip(mass, LEAST, 1 - LEAST)
    z = calibration.offset + calibration.slope * logit(mass)
    return jax.nn.sigmoid(z)
