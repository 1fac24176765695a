"""Cubic boxes round landmarks: the pieces of a region proposal network, in voxels.

For one landmark of one example: anchors [M, 3] of one size, targets a position [3] and that size.
The study's baseline (Chen et al., ISBI 2020, arXiv 2004.00207) is published without its anchors,
its spacing and its exact prior: what stands here is our reconstruction of it, not its code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

POSITIVE_IOU, NEGATIVE_IOU = 0.5, 0.3
BALANCE = 1.5  # exponent of the IoU-balanced losses (Wu et al., arXiv 1908.05641)
HARD_NEGATIVES = 64  # of each map, those with the highest score count
MAX_LOG_SIZE = 2.0  # a box is at most e² times its anchor


class Boxes(NamedTuple):
    """Cubes with their scores."""

    centre: jax.Array  # [..., 3] voxels
    side: jax.Array  # [...] voxels
    score: jax.Array  # [...] logit of being an object


def make_anchors(shape: tuple[int, int, int], stride: int) -> jax.Array:
    """Centres [M, 3] in voxels of the cells of `stride` voxels that a volume [D, H, W] has."""
    cells = (jnp.arange(n // stride, dtype=jnp.float32) for n in shape)
    axes = [cell * stride + (stride - 1) / 2 for cell in cells]
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def intersect_over_union(
    centre_a: jax.Array, side_a: jax.Array, centre_b: jax.Array, side_b: jax.Array
) -> jax.Array:
    """IoU of cubes; centres [..., 3] and sides [...] broadcast."""
    half = (side_a + side_b)[..., None] / 2
    apart = jnp.abs(centre_a - centre_b)
    overlap = jnp.clip(half - apart, 0.0, jnp.minimum(side_a, side_b)[..., None])
    shared = jnp.prod(overlap, axis=-1)
    return shared / (side_a**3 + side_b**3 - shared)


def decode_boxes(outputs: jax.Array, anchors: jax.Array, side_vox: float) -> Boxes:
    """Outputs [M, 5] (score, shift in anchor sides, log size) at anchors [M, 3] to boxes."""
    if outputs.shape != (len(anchors), 5):
        raise ValueError(f"expected outputs [{len(anchors)}, 5], got {outputs.shape}")
    size = jnp.clip(outputs[:, 4], -MAX_LOG_SIZE, MAX_LOG_SIZE)
    return Boxes(anchors + side_vox * outputs[:, 1:4], side_vox * jnp.exp(size), outputs[:, 0])


def assign_anchors(
    anchors: jax.Array, target_vox: jax.Array, side_vox: float
) -> tuple[jax.Array, jax.Array]:
    """(positive [M], negative [M]): IoU with the target at least 0.5, or below 0.3.

    The best anchor is always positive, so every target has one.
    """
    side = jnp.full(len(anchors), side_vox)
    iou = intersect_over_union(anchors, side, target_vox[None], side)
    # a target outside the volume may meet no anchor at all: then the nearest is the best
    near = -jnp.sum(jnp.square(anchors - target_vox[None]), axis=-1)
    best = jnp.argmax(jnp.where(jnp.max(iou) > 0, iou, near))
    positive = (iou >= POSITIVE_IOU) | (jnp.arange(len(anchors)) == best)
    return positive, (iou < NEGATIVE_IOU) & ~positive


def balance_weights(losses: jax.Array, iou: jax.Array, counted: jax.Array) -> jax.Array:
    """Weights iou^1.5 [M] of positives' losses [M], scaled so that their sum stays what it was."""
    weights = jnp.where(counted, iou**BALANCE, 0.0)
    before = jnp.sum(jnp.where(counted, losses, 0.0))
    after = jnp.sum(weights * losses)
    plain = counted.astype(losses.dtype)
    return jnp.where(after > 0, weights * before / jnp.where(after > 0, after, 1.0), plain)


def box_loss(
    outputs: jax.Array, anchors: jax.Array, target_vox: jax.Array, *, side_vox: float
) -> jax.Array:
    """Classification and localisation of one landmark's boxes, a scalar.

    Cross-entropy of the positives weighted by the IoU of their regressed boxes, that of the hardest
    negatives, and a smooth L1 of the positives' boxes, again weighted. No gradient goes through
    the weights.
    """
    positive, negative = assign_anchors(anchors, target_vox, side_vox)
    boxes = decode_boxes(outputs, anchors, side_vox)
    side = jnp.full(len(anchors), side_vox)
    iou = jax.lax.stop_gradient(
        intersect_over_union(boxes.centre, boxes.side, target_vox[None], side)
    )
    count = jnp.sum(positive, dtype=jnp.float32)
    hit = jax.nn.softplus(-boxes.score)  # -log σ(score)
    weights = jax.lax.stop_gradient(balance_weights(hit, iou, positive))
    found = jnp.sum(weights * hit) / count
    miss = jnp.where(negative, jax.nn.softplus(boxes.score), 0.0)
    hardest, _ = jax.lax.top_k(miss, min(HARD_NEGATIVES, len(anchors)))
    wanted = jnp.concatenate(
        [(target_vox[None] - anchors) / side_vox, jnp.zeros((len(anchors), 1))], axis=1
    )
    off = jnp.sum(optax.huber_loss(outputs[:, 1:], wanted), axis=1)
    # scaled like the other: a plain iou^1.5 would give up a box that has drifted off its target
    weights = jax.lax.stop_gradient(balance_weights(off, iou, positive))
    placed = jnp.sum(weights * off) / count
    return found + jnp.mean(hardest) + placed


def shape_prior(centres: jax.Array, mean_distances: jax.Array, counted: jax.Array) -> jax.Array:
    """Σ over pairs i < j of | ‖c_i - c_j‖ - d_ij | / d_ij: 0 at the mean shape, in any pose.

    Args:
      centres: [L, 3].
      mean_distances: [L, L], in the same unit; 0 where no case has both, which is left out.
      counted: [L] bool, landmarks that are there.
    """
    i, j = jnp.triu_indices(len(centres), 1)
    squared = jnp.sum(jnp.square(centres[i] - centres[j]), axis=-1)
    apart = jnp.sqrt(jnp.maximum(squared, 1e-6))  # a root has no gradient at 0
    d = mean_distances[i, j]
    known = counted[i] & counted[j] & (d > 0)
    return jnp.sum(jnp.where(known, jnp.abs(apart - d) / jnp.where(d > 0, d, 1.0), 0.0))


def mean_distances(points: np.ndarray, present: np.ndarray) -> np.ndarray:
    """[L, L], mean distance between each two landmarks over the cases that have both, else 0.

    Args:
      points: [N, L, 3].
      present: [N, L] bool.
    """
    both = present[:, :, None] & present[:, None, :]
    apart = np.linalg.norm(points[:, :, None] - points[:, None, :], axis=-1)
    return np.where(both, apart, 0.0).sum(axis=0) / np.maximum(both.sum(axis=0), 1)


def expect_centre(boxes: Boxes) -> jax.Array:
    """Centre [3] that the scores expect: the mean over the boxes, weighted by their softmax."""
    weights = jax.nn.softmax(boxes.score)
    return jnp.sum(weights[:, None] * boxes.centre, axis=0)
