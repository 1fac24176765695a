"""What annotators write down: visible points as they see them, the others completed.

An invisible landmark is the mirror image of its other side, if that one is seen, in the sagittal
plane as the annotator judges it; else it is placed by comparison with other faces.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fetal_jax.phantom import anatomy

# Sd along each axis, of the judged plane, a mirrored point, and one placed by eye.
PLANE_DEG, PLANE_MM, MIRRORED_MM, PLACED_MM = 1.5, 0.6, 1.0, 1.8
# Between annotators: each one's own habit for a landmark, and what differs from case to case.
HABIT_MM, READING_MM = 0.35, 0.5

_SWAP = np.array([anatomy.LABELS.index(anatomy.MIRROR[label]) for label in anatomy.LABELS])
_MIDDLE = _SWAP == np.arange(len(anatomy.LABELS))


def complete_landmarks(key: Array, points: Array, visible: Array) -> Array:
    """The annotated positions [19, 3] in the child's own mm: true where visible [19] is true."""
    plane_key, shift_key, point_key = jax.random.split(key, 3)
    tilt = jnp.deg2rad(PLANE_DEG) * jax.random.normal(plane_key, (2,))
    normal = jnp.stack([jnp.ones(()), tilt[0], tilt[1]])
    normal = normal / jnp.linalg.norm(normal)
    height = jnp.sum(points * normal[None], axis=1) - PLANE_MM * jax.random.normal(shift_key)
    mirrored = (points - 2.0 * height[:, None] * normal[None])[_SWAP]
    noise = jax.random.normal(point_key, points.shape)
    can_mirror = (visible[_SWAP] & ~_MIDDLE)[:, None]
    guessed = jnp.where(can_mirror, mirrored + MIRRORED_MM * noise, points + PLACED_MM * noise)
    return jnp.where(visible[:, None], points, guessed)


def read_landmarks(
    habit_key: Array, key: Array, points: Array, visible: Array, *, annotators: int
) -> Array:
    """Several annotators' readings [annotators, 19, 3] of one case, in the child's own mm.

    Args:
      habit_key: the same for every case of a cohort: an annotator's habits stay.
      key: this case's.
    """

    def read(i):
        habit = HABIT_MM * jax.random.normal(jax.random.fold_in(habit_key, i), points.shape)
        own_key = jax.random.fold_in(key, i)
        slip = READING_MM * jax.random.normal(jax.random.fold_in(own_key, 1), points.shape)
        completed = complete_landmarks(jax.random.fold_in(own_key, 2), points, visible)
        return completed + jnp.where(visible[:, None], habit + slip, 0.0)

    return jax.vmap(read)(jnp.arange(annotators))
