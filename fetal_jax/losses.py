"""Losses on maps of logits, for one landmark of one example: [D, H, W] to a scalar, r in mm.

First the formulas as they stand in the study, on maps that the caller made: to read, to test
against, to build on. Then `landmark_loss`, the same numbers from a landmark's position, with the
gradient in closed form, so that neither targets nor distances are ever kept. `compute_losses` maps
it over a batch, [B, L, D, H, W] to [B, L]; the caller takes the mean over the landmarks that are
there.
"""

from functools import partial

import jax
import jax.numpy as jnp

from fetal_jax import heatmaps

NAMES = ("ce", "distance", "emd", "sse")


def softmax_cross_entropy(logits: jax.Array, log_q: jax.Array) -> jax.Array:
    """-Σ q log p, p being the softmax of the logits over all voxels; the floor is `entropy`."""
    _check_same(logits, log_q)
    return jax.nn.logsumexp(logits) - jnp.sum(jnp.exp(log_q) * logits)


def entropy(log_q: jax.Array) -> jax.Array:
    """-Σ q log q of a distribution given by its logarithm."""
    return -jnp.sum(jnp.exp(log_q) * log_q)


def distance_penalty(logits: jax.Array, distance_mm: jax.Array, *, omega: float) -> jax.Array:
    """Σ p r^ω. Against a single point, ω = 1 is the earth mover's distance of p, in mm."""
    _check_same(logits, distance_mm)
    p = jax.nn.softmax(logits.reshape(-1)).reshape(logits.shape)
    return jnp.sum(p * _power(distance_mm, omega))


def emd_regularised(
    logits: jax.Array,
    log_q: jax.Array,
    distance_mm: jax.Array,
    *,
    omega: float,
    lambda1: float = 1.0,
    lambda2: float = 0.2,
) -> jax.Array:
    """λ1 softmax cross-entropy + λ2 Σ p r^ω, the study's loss (its best: ω 0.5, λ1 1, λ2 0.2)."""
    cross_entropy = softmax_cross_entropy(logits, log_q)
    return lambda1 * cross_entropy + lambda2 * distance_penalty(logits, distance_mm, omega=omega)


def sum_squared_error(logits: jax.Array, heatmap: jax.Array) -> jax.Array:
    """Σ (sigmoid(z) - H)²."""
    _check_same(logits, heatmap)
    return jnp.sum(jnp.square(jax.nn.sigmoid(logits) - heatmap))


def log_weights(logits: jax.Array, *, name: str) -> jax.Array:
    """Logarithm, up to a constant, of the map that logits trained with `name` stand for."""
    return jax.nn.log_sigmoid(logits) if name == "sse" else logits


def landmark_loss(
    logits: jax.Array,
    target_vox: jax.Array,
    *,
    name: str,
    spacing_mm: float,
    kind: str,
    width_mm: float,
    omega: float = 0.5,
    lambda1: float = 1.0,
    lambda2: float = 0.2,
) -> jax.Array:
    """Loss of one map [D, H, W] against one landmark [3] in voxels.

    Args:
      logits: [D, H, W].
      target_vox: [3], anywhere, finite.
      name: "ce", "distance", "emd" or "sse".
      spacing_mm: side of a voxel.
      kind, width_mm: of the target, see `heatmaps.render_heatmap`.
      omega, lambda1, lambda2: of `emd_regularised`; "distance" takes ω only, "ce" none.
    """
    if name not in NAMES:
        raise ValueError(f"expected a loss of {NAMES}, got {name!r}")
    if name == "sse":
        distance_mm = heatmaps.compute_distances(logits.shape, target_vox, spacing_mm)
        heatmap = heatmaps.render_heatmap(distance_mm, kind=kind, width_mm=width_mm)
        return sum_squared_error(logits, heatmap)
    if name == "ce":
        lambda1, lambda2 = 1.0, 0.0
    elif name == "distance":
        lambda1, lambda2 = 0.0, 1.0
    settings = (spacing_mm, kind, width_mm, omega, lambda1, lambda2)
    return _emd_from_position(settings, logits, target_vox)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _emd_from_position(settings, logits, target_vox):
    return _emd_forward(settings, logits, target_vox)[0]


def _emd_forward(settings, logits, target_vox):
    *_, lambda1, lambda2 = settings
    log_h, cost = _target_and_cost(settings, logits.shape, target_vox)
    top, top_h = jnp.max(logits), jnp.max(log_h)
    weights, h = jnp.exp(logits - top), jnp.exp(log_h - top_h)
    total, total_h = jnp.sum(weights), jnp.sum(h)
    mean_cost = jnp.sum(weights * cost) / total  # E_p[r^ω]
    cross_entropy = top + jnp.log(total) - jnp.sum(h * logits) / total_h
    loss = lambda1 * cross_entropy + lambda2 * mean_cost
    return loss, (logits, target_vox, top, total, top_h, total_h, mean_cost)


def _emd_backward(settings, kept, g):
    """λ1 (p - q) + λ2 p (r^ω - E_p[r^ω]), with p and q made anew instead of kept."""
    *_, lambda1, lambda2 = settings
    logits, target_vox, top, total, top_h, total_h, mean_cost = kept
    log_h, cost = _target_and_cost(settings, logits.shape, target_vox)
    # the maximum goes first: far outside, log H is so large that log ΣH would lose its digits
    p, q = jnp.exp(logits - top) / total, jnp.exp(log_h - top_h) / total_h
    return g * (p * (lambda1 + lambda2 * (cost - mean_cost)) - lambda1 * q), None


def _target_and_cost(settings, shape, target_vox):
    spacing_mm, kind, width_mm, omega, *_ = settings
    distance_mm = heatmaps.compute_distances(shape, target_vox, spacing_mm)
    log_h = heatmaps.log_heatmap(distance_mm, kind=kind, width_mm=width_mm)
    return log_h, _power(distance_mm, omega)


_emd_from_position.defvjp(_emd_forward, _emd_backward)


def compute_losses(logits: jax.Array, targets_vox: jax.Array, **settings) -> jax.Array:
    """`landmark_loss` for a batch.

    Args:
      logits: [B, L, D, H, W].
      targets_vox: [B, L, 3]; where a landmark is absent any finite position will do.
      **settings: those of `landmark_loss`.

    Returns:
      [B, L].
    """
    if logits.ndim != 5 or targets_vox.shape != (*logits.shape[:2], 3):
        raise ValueError(
            "expected logits [B, L, D, H, W] and targets [B, L, 3], "
            f"got {logits.shape} and {targets_vox.shape}"
        )
    one = partial(landmark_loss, **settings)
    return jax.vmap(jax.vmap(one))(logits, targets_vox)


def sum_losses(
    logits: jax.Array, targets_vox: jax.Array, counted: jax.Array, **settings
) -> jax.Array:
    """`compute_losses`, summed over the landmarks [B, L] that are counted."""
    return jnp.sum(jnp.where(counted, compute_losses(logits, targets_vox, **settings), 0.0))


def _power(distance_mm, omega):
    """r^ω; a general power costs ten times a root on a CPU."""
    if omega == 0.5:
        return jnp.sqrt(distance_mm)
    return jnp.power(distance_mm, omega)


def _check_same(logits, other):
    if logits.shape != other.shape:
        raise ValueError(f"expected two maps of one shape, got {logits.shape} and {other.shape}")
