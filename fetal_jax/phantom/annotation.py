"""What annotators write down: visible points as they see them, the others completed.

An invisible landmark is the mirror image of its other side, if that side is visible, in the
sagittal plane as the annotator judges it; else the annotator places it by experience.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fetal_jax.landmarks import LABELS, MIRROR

# Sd, along each axis, of the judged plane, of a mirrored point, and of one placed by experience.
PLANE_DEG, PLANE_MM, MIRRORED_MM, PLACED_MM = 1.5, 0.6, 1.0, 1.8
# Sd between annotators: each one's bias at a landmark, the same in all cases; and each reading's.
HABIT_MM, READING_MM = 0.35, 0.5

_OTHER_SIDE = np.array([LABELS.index(MIRROR[label]) for label in LABELS])
_ON_MIDLINE = _OTHER_SIDE == np.arange(len(LABELS))


def complete_landmarks(key: Array, points: Array, visible: Array) -> Array:
    """Sample the positions [L, 3] that one annotator writes down, in the child's own mm.

    Args:
      key: PRNG key.
      points: [L, 3] the true positions in landmarks.LABELS' order.
      visible: [L] bool; a visible point is written down as it is.
    """
    plane_key, shift_key, point_key = jax.random.split(key, 3)
    tilt = jnp.deg2rad(PLANE_DEG) * jax.random.normal(plane_key, (2,))
    normal = jnp.stack([jnp.ones(()), tilt[0], tilt[1]])
    normal = normal / jnp.linalg.norm(normal)
    height = jnp.sum(points * normal[None], axis=1) - PLANE_MM * jax.random.normal(shift_key)
    mirrored = (points - 2.0 * height[:, None] * normal[None])[_OTHER_SIDE]
    noise = jax.random.normal(point_key, points.shape)
    can_mirror = (visible[_OTHER_SIDE] & ~_ON_MIDLINE)[:, None]
    guessed = jnp.where(can_mirror, mirrored + MIRRORED_MM * noise, points + PLACED_MM * noise)
    return jnp.where(visible[:, None], points, guessed)


def sample_readings(
    habit_key: Array, key: Array, points: Array, visible: Array, *, annotators: int
) -> Array:
    """Sample several annotators' readings [annotators, L, 3] of one case, in the child's own mm.

    Args:
      habit_key: PRNG key, the same for every case of a cohort: an annotator keeps a bias.
      key: this case's PRNG key.
      points: [L, 3] the true positions in landmarks.LABELS' order.
      visible: [L] bool.
      annotators: how many, static.
    """

    def sample_reading(i: Array) -> Array:
        habit = HABIT_MM * jax.random.normal(jax.random.fold_in(habit_key, i), points.shape)
        own_key = jax.random.fold_in(key, i)
        slip = READING_MM * jax.random.normal(jax.random.fold_in(own_key, 1), points.shape)
        completed = complete_landmarks(jax.random.fold_in(own_key, 2), points, visible)
        return completed + jnp.where(visible[:, None], habit + slip, 0.0)

    return jax.vmap(sample_reading)(jnp.arange(annotators))
