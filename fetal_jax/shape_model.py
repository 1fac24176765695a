"""A face's shape as a few modes about the mean: where landmarks are expected, given the others.

Probabilistic principal components (Tipping and Bishop 1999, J. R. Stat. Soc. B 61:611): a shape is
the mean, a sum of K modes with standard normal amounts, and noise of one size. All points are in mm
of the face's frame, see `frames`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fetal_jax.frames import MIRROR

MODES = 8
CASES_A_MODE = 5  # fewer cases have fewer modes
ROUNDS = 20  # of filling in what is absent


class ShapeModel(NamedTuple):
    """mean_mm: [L, 3]; modes_mm: [K, L, 3], each as long as one standard deviation; noise_mm: sd
    along each axis of what the modes leave.
    """

    mean_mm: np.ndarray
    modes_mm: np.ndarray
    noise_mm: float


def fit_shape_model(
    mean_mm: np.ndarray, shapes_mm: np.ndarray, mirror_index: np.ndarray | None = None
) -> ShapeModel:
    """The modes of shapes about a mean that stays as it is.

    Args:
      mean_mm: [L, 3], symmetric about x = 0 where there is a mirror_index.
      shapes_mm: [N, L, 3] in its frame, NaN where absent; what is absent is filled in by the model
        itself, from the rest of the same shape, until both agree.
      mirror_index: [L], which landmark is each one's on the other side: the mirror images then
        count as shapes, too.
    """
    away = np.asarray(shapes_mm, np.float64) - mean_mm
    if mirror_index is not None:
        away = np.concatenate([away, away[:, mirror_index] * MIRROR])
    n, count, _ = away.shape
    away = away.reshape(n, 3 * count)
    known = np.isfinite(away)
    size = min(MODES, len(shapes_mm) // CASES_A_MODE, 3 * count - 1)
    filled, modes, noise = np.where(known, away, 0.0), np.zeros((0, 3 * count)), 1.0
    for _ in range(1 if known.all() else ROUNDS):
        variances, axes = np.linalg.eigh(filled.T @ filled / n)
        variances, axes = variances[::-1], axes.T[::-1]
        left = variances[size:].sum() / (3 * count - size)
        noise = float(np.sqrt(max(left, 1e-6)))
        lengths = np.sqrt(np.maximum(variances[:size] - left, 0.0))
        modes = lengths[:, None] * axes[:size]
        filled = np.where(known, away, _expect(filled, known, modes, noise))
    return ShapeModel(np.asarray(mean_mm, np.float64), modes.reshape(size, count, 3), noise)


def _expect(away, known, modes, noise) -> np.ndarray:
    """[N, 3 L]: what the modes [K, 3 L] make of what is known of each case."""
    products = (modes[:, None] * modes[None]).reshape(len(modes) ** 2, modes.shape[1])
    precision = (known.astype(np.float64) @ products.T).reshape(len(away), len(modes), len(modes))
    towards = np.where(known, away, 0.0) @ modes.T
    amounts = np.linalg.solve(precision + noise**2 * np.eye(len(modes)), towards[..., None])
    return amounts[..., 0] @ modes


def complete_shape(model: ShapeModel, points_mm: jax.Array, weights: jax.Array) -> jax.Array:
    """Where each landmark is expected, [L, 3] mm of the frame, given those that were found.

    The most likely shape given each point with the noise's variance over its weight: with a weight
    of 1 it counts in full, with 0 not at all, whatever stands in its place.

    Args:
      points_mm: [L, 3] mm of the frame.
      weights: [L], 0 to 1.
    """
    mean, modes = (jnp.asarray(a, jnp.float32) for a in (model.mean_mm, model.modes_mm))
    count = len(modes)
    flat = modes.reshape(count, mean.size)
    away = jnp.where(weights[:, None] > 0, points_mm - mean, 0.0).reshape(-1)
    variance = jnp.repeat(model.noise_mm**2 / jnp.maximum(weights, 1e-9), 3)

    # one number after the other: no matrix is inverted, so that an exported file needs no library
    def add(i, state):
        amounts, spread = state
        mode = flat[:, i]
        along = jnp.matmul(spread, mode, precision="highest")
        gain = along / (jnp.sum(mode * along) + variance[i])
        amounts = amounts + gain * (away[i] - jnp.sum(mode * amounts))
        return amounts, spread - gain[:, None] * along[None, :]

    start = jnp.zeros(count), jnp.eye(count)
    amounts, _ = jax.lax.fori_loop(0, flat.shape[1], add, start)
    return mean + jnp.einsum("k,klc->lc", amounts, modes, precision="highest")
