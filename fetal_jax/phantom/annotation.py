"""What annotators write down: visible points with their error, hidden ones by what they expect.

A visible point is read with an annotator's habit and a slip. A hidden one is where the mean face of
that age would have it, given the points that are seen, and those of a side are misjudged together:
the more so, the less of it is seen.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fetal_jax.landmarks import LABELS, MIDLINE
from fetal_jax.phantom import anatomy

# Sd along each axis, in mm, of what the hidden points of a side are misjudged by together, where
# all of it is hidden, and of each hidden point alone.
TOGETHER_MM, ALONE_MM = 1.8, 1.0
# What is expected of a child: from so many children; the head's pose is not known better than this.
CHILDREN, FRAME_DEG, FRAME_MM = 128, 6.0, 4.0
READ_MM = 0.7  # sd along each axis with which an annotator trusts a visible point

# Along this axis of the child (x to its right, y up) the feature runs on and a point of it is read
# with an error ALONG times as large; across it, ACROSS times.
ALONG, ACROSS = 1.4, 0.8
_RUNS = {
    "n": 1, "prn": 1, "sn": 1, "ls": 1, "li": 1, "sl": 1, "pg": 1,
    "en": 0, "ex": 0, "al": 1, "ac": 1, "cph": 0, "ch": 0,
}  # fmt: skip
_STEMS = [label if label in MIDLINE else label[:-1] for label in LABELS]
_STRETCH = np.full((len(LABELS), 3), ACROSS, np.float32)
_STRETCH[np.arange(len(LABELS)), [_RUNS[stem] for stem in _STEMS]] = ALONG
_SIDES = np.array(
    [[label in MIDLINE for label in LABELS]]
    + [[label not in MIDLINE and label[-1] == side for label in LABELS] for side in "LR"]
)  # [3, L]


class Shapes(NamedTuple):
    """What is expected of a child's landmarks in its own mm: a Gaussian."""

    mean: Array  # [L, 3] mm
    covariance: Array  # [3 L, 3 L] mm²


def expect_shapes(age_weeks: Array | float) -> Shapes:
    """The mean face of healthy children of an age [], how they vary, and how their pose is judged.

    Always from the same children, CHILDREN of them: annotators know no more of a case than its age.
    """
    age_weeks = jnp.asarray(age_weeks)

    def expect_child(key: Array) -> Array:
        return anatomy.expect_landmarks(anatomy.sample_face(key, age_weeks))[: len(LABELS)]

    # a loop: 128 faces at once take thrice as long to compile
    points = jax.lax.map(expect_child, jax.random.split(jax.random.key(0), CHILDREN))
    mean = jnp.mean(points, axis=0)
    centred = mean - jnp.mean(mean, axis=0, keepdims=True)
    axes = jnp.eye(3)
    turned = jnp.stack([jnp.cross(centred, jnp.broadcast_to(a, centred.shape)) for a in axes])
    shifted = jnp.broadcast_to(axes[:, None, :], turned.shape)
    spread = (points - mean[None]) / CHILDREN**0.5
    pose = jnp.concatenate([jnp.deg2rad(FRAME_DEG) * turned, FRAME_MM * shifted])
    modes = jnp.concatenate([spread, pose]).reshape(CHILDREN + 6, -1)
    return Shapes(mean, jnp.matmul(modes.T, modes, precision=jax.lax.Precision.HIGHEST))


def expect_hidden(shapes: Shapes, read: Array, visible: Array) -> Array:
    """Mean of the landmarks [L, 3] given those of them that are visible, by the shapes' Gaussian.

    Args:
      shapes: of the child's age.
      read: [L, 3] mm, with an error of READ_MM along each axis; hidden ones are not looked at.
      visible: [L] bool.
    """
    seen = jnp.repeat(visible, 3)
    both = seen[:, None] & seen[None, :]
    # a hidden coordinate is one that nothing depends on
    noise = jnp.where(seen, READ_MM**2, 1.0)
    off = jnp.where(seen, (read - shapes.mean).reshape(-1), 0.0)
    weights = jnp.linalg.solve(jnp.where(both, shapes.covariance, 0.0) + jnp.diag(noise), off)
    shift = jnp.matmul(shapes.covariance, weights, precision=jax.lax.Precision.HIGHEST)
    return shapes.mean + shift.reshape(read.shape)


def complete_landmarks(key: Array, shapes: Shapes, read: Array, visible: Array) -> Array:
    """Sample what is written down [L, 3]: visible points as they were read, the others completed.

    Args:
      key: PRNG key.
      shapes: of the child's age.
      read: [L, 3] own mm.
      visible: [L] bool.
    """
    side_key, point_key = jax.random.split(key)
    sides = jnp.asarray(_SIDES, jnp.float32)
    share = jnp.sum(jnp.where(visible[None], 0.0, sides), axis=1) / jnp.sum(sides, axis=1)
    together = TOGETHER_MM * jnp.sqrt(share)[:, None] * jax.random.normal(side_key, (3, 3))
    alone = ALONE_MM * jax.random.normal(point_key, read.shape)
    shift = jnp.einsum("kl,kc->lc", sides, together, precision=jax.lax.Precision.HIGHEST)
    guessed = expect_hidden(shapes, read, visible) + shift + alone
    return jnp.where(visible[:, None], read, guessed)


def sample_reading(
    habit_key: Array,
    key: Array,
    shapes: Shapes,
    points: Array,
    visible: Array,
    *,
    habit_mm: Array | float,
    slip_mm: Array | float,
) -> Array:
    """Sample what one annotator writes down of one case: [L, 3] in the child's own mm.

    Args:
      habit_key: the annotator's PRNG key, the same for every case: the habit is kept.
      key: PRNG key of this reading.
      shapes: of the child's age.
      points: [L, 3] the true positions in landmarks.LABELS' order.
      visible: [L] bool.
      habit_mm, slip_mm: [] sd along each axis, of the habit at a landmark and of each reading.
    """
    slip_key, completion_key = jax.random.split(key)
    habit = habit_mm * jax.random.normal(habit_key, points.shape)
    slip = slip_mm * jax.random.normal(slip_key, points.shape)
    read = points + jnp.asarray(_STRETCH) * (habit + slip)
    return complete_landmarks(completion_key, shapes, read, visible)
