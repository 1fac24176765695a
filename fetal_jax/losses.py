"""Losses on maps of logits, for one landmark of one example: [D, H, W] to a scalar, r in mm.

First the formulas as they stand in the study, on maps that the caller made: to read, to test
against, to build on. Then the same numbers from a landmark's position, with the gradient in closed
form, so that neither targets nor distances are ever kept as maps. `LOSSES` has each loss by its
name; a formula becomes one by `from_maps`, and trains by JAX's own differentiation.
`compute_losses` maps a loss over a batch, [B, L, D, H, W] to [B, L]; the caller takes the mean over
the landmarks that are there.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fetal_jax import heatmaps


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


def divergence(logits: jax.Array, log_q: jax.Array) -> jax.Array:
    """The Jensen-Shannon divergence of p, the softmax of the logits, and q: 0 to ln 2."""
    _check_same(logits, log_q)
    log_p = jax.nn.log_softmax(logits.reshape(-1)).reshape(logits.shape)
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0)
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    return 0.5 * jnp.sum(p * (log_p - log_m) + q * (log_q - log_m))


def soft_argmax_distance(
    logits: jax.Array, target_vox: jax.Array, *, spacing_mm: float
) -> jax.Array:
    """From the mean position of p, the softmax of the logits, to a landmark [3], in mm."""
    p = jax.nn.softmax(logits.reshape(-1)).reshape(logits.shape)
    places = [jnp.arange(n, dtype=jnp.float32) for n in logits.shape]
    marginals = [jnp.sum(p, axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    mean = jnp.stack([jnp.sum(m * x) for m, x in zip(marginals, places, strict=True)])
    square = jnp.sum(jnp.square(mean - target_vox))
    # a root has no slope at 0
    return spacing_mm * jnp.sqrt(jnp.maximum(square, 1e-12))


class Target(NamedTuple):
    """What a landmark's map should look like, see `heatmaps.render_heatmap`."""

    kind: str
    width_mm: float
    spacing_mm: float  # side of a voxel


class TargetMaps(NamedTuple):
    """What a formula may compare the logits with, each [D, H, W]."""

    distance_mm: jax.Array  # of each voxel to the landmark
    heatmap: jax.Array  # its peak is 1
    log_q: jax.Array  # logarithm of the target distribution


class Loss(NamedTuple):
    """A loss, and what its logits mean.

    title: for tables, with its factors as in a format string.
    compute: (logits [D, H, W], target_vox [3], target, **factors) -> a scalar.
    factors: names of the settings that it takes.
    log_weights: logits -> logarithm, up to a constant, of the map that they stand for.
    """

    title: str
    compute: Callable[..., jax.Array]
    factors: tuple[str, ...] = ()
    log_weights: Callable[[jax.Array], jax.Array] = lambda logits: logits


def from_maps(formula: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A `Loss.compute` of a formula on maps: formula(logits, maps: TargetMaps, **factors)."""

    def compute(logits, target_vox, target, **factors):
        target_vox = heatmaps.clip_target(target_vox, logits.shape)
        distance_mm = heatmaps.compute_distances(logits.shape, target_vox, target.spacing_mm)
        look = {"kind": target.kind, "width_mm": target.width_mm}
        maps = TargetMaps(
            distance_mm,
            heatmaps.render_heatmap(distance_mm, **look),
            heatmaps.log_target(distance_mm, **look),
        )
        return formula(logits, maps, **factors)

    return compute


def log_weights(logits: jax.Array, *, name: str) -> jax.Array:
    """Logarithm, up to a constant, of the map that logits trained with `name` stand for."""
    return LOSSES[name].log_weights(logits)


def format_title(name: str, **factors: float) -> str:
    """What a table calls a loss, as 'EMD-regularised, ω 0.5'."""
    return LOSSES[name].title.format(**factors)


def landmark_loss(
    logits: jax.Array,
    target_vox: jax.Array,
    *,
    name: str,
    spacing_mm: float,
    kind: str,
    width_mm: float,
    **factors: float,
) -> jax.Array:
    """Loss of one map [D, H, W] against one landmark [3] in voxels.

    Args:
      logits: [D, H, W].
      target_vox: [3], anywhere; from 1000 voxels outside on it counts as `heatmaps.clip_target`
        of it.
      name: a key of `LOSSES`.
      spacing_mm: side of a voxel.
      kind, width_mm: of the target, see `heatmaps.render_heatmap`.
      **factors: omega, lambda1, lambda2 of `emd_regularised` and whatever else a loss of `LOSSES`
        takes; what this one does not take is left aside.
    """
    if name not in LOSSES:
        raise ValueError(f"expected a loss of {sorted(LOSSES)}, got {name!r}")
    if target_vox.shape != (3,):
        raise ValueError(f"expected one position [3], got {target_vox.shape}")
    known = {factor for loss in LOSSES.values() for factor in loss.factors}
    if unknown := sorted(factors.keys() - known):
        raise ValueError(f"expected factors of {sorted(known)}, got {unknown}")
    loss = LOSSES[name]
    taken = {factor: factors[factor] for factor in loss.factors if factor in factors}
    return loss.compute(logits, target_vox, Target(kind, width_mm, spacing_mm), **taken)


# ---- the study's losses from a landmark's position ----


def _compute_ce(logits, target_vox, target):
    return _emd_from_position(_Settings(*target, 0.5, 1.0, 0.0), logits, target_vox)


def _compute_distance(logits, target_vox, target, *, omega=0.5):
    return _emd_from_position(_Settings(*target, omega, 0.0, 1.0), logits, target_vox)


def _compute_emd(logits, target_vox, target, *, omega=0.5, lambda1=1.0, lambda2=0.2):
    return _emd_from_position(_Settings(*target, omega, lambda1, lambda2), logits, target_vox)


def _compute_sse(logits, target_vox, target):
    return _sum_squared_from_position(_Settings(*target, 0.5, 0.0, 0.0), logits, target_vox)


def _compute_dsnt(logits, target_vox, target, *, lambda1=1.0, lambda2=0.02):
    """Nibali, He, Morgan, Prendergast 2018, arXiv 1801.07372, with its divergence D_JS.

    There positions go from -1 to 1 over the map and both parts weigh 1: λ2 is 2 / (side in mm).
    """
    target_vox = heatmaps.clip_target(target_vox, logits.shape)
    distance_mm = heatmaps.compute_distances(logits.shape, target_vox, target.spacing_mm)
    log_q = heatmaps.log_target(distance_mm, kind=target.kind, width_mm=target.width_mm)
    off_mm = soft_argmax_distance(logits, target_vox, spacing_mm=target.spacing_mm)
    return lambda1 * divergence(logits, log_q) + lambda2 * off_mm


LOSSES = {
    "ce": Loss("Softmax CE", _compute_ce),
    "distance": Loss("Distance penalty, ω {omega:g}", _compute_distance, ("omega",)),
    "emd": Loss("EMD-regularised, ω {omega:g}", _compute_emd, ("omega", "lambda1", "lambda2")),
    "sse": Loss("Sum of squared errors", _compute_sse, log_weights=jax.nn.log_sigmoid),
    "dsnt": Loss("Soft-argmax (DSNT)", _compute_dsnt, ("lambda1", "lambda2")),
}
NAMES = tuple(LOSSES)


class _Settings(NamedTuple):
    kind: str
    width_mm: float
    spacing_mm: float
    omega: float
    lambda1: float
    lambda2: float

    def maps(self, z, target_vox, row):
        """(log H, r^ω) at the voxels of a slab [D, n, W] that begins at a row."""
        distance_mm = heatmaps.compute_distances(
            z.shape, target_vox - jnp.array([0.0, 1.0, 0.0]) * jnp.float32(row), self.spacing_mm
        )
        log_h = heatmaps.log_heatmap(distance_mm, kind=self.kind, width_mm=self.width_mm)
        return log_h, _power(distance_mm, self.omega)

    def peak(self, shape, target_vox):
        """The largest log H: that of the nearest voxel."""
        last = jnp.array(shape, jnp.float32) - 1
        nearest = jnp.clip(jnp.round(target_vox), 0.0, last)
        return self.maps(jnp.zeros((1, 1, 1)), target_vox - nearest, 0)[0][0, 0, 0]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _emd_from_position(settings, logits, target_vox):
    return _emd_forward(settings, logits, target_vox)[0]


def _emd_forward(settings, logits, target_vox):
    target_vox = heatmaps.clip_target(target_vox, logits.shape)
    top, top_h = jnp.max(logits), settings.peak(logits.shape, target_vox)

    def sums(z, row, target_vox, top, top_h):
        log_h, cost = settings.maps(z, target_vox, row)
        weights, h = jnp.exp(z - top), jnp.exp(log_h - top_h)
        return jnp.stack([jnp.sum(x) for x in (weights, weights * cost, h, h * z)])

    total, mean_cost, total_h, mean_z = _sum_slabs(sums, logits, target_vox, top, top_h)
    mean_cost, mean_z = mean_cost / total, mean_z / total_h  # E_p[r^ω], E_q[z]
    loss = settings.lambda1 * (top + jnp.log(total) - mean_z) + settings.lambda2 * mean_cost
    return loss, (logits, target_vox, top, total, top_h, total_h, mean_cost)


def _emd_backward(settings, kept, g):
    """λ1 (p - q) + λ2 p (r^ω - E_p[r^ω]), with p and q made anew instead of kept."""

    def gradient(z, row, target_vox, top, total, top_h, total_h, mean_cost, g):
        log_h, cost = settings.maps(z, target_vox, row)
        # the maximum goes first: far outside, log H is so large that log ΣH would lose its digits
        p, q = jnp.exp(z - top) / total, jnp.exp(log_h - top_h) / total_h
        factor = settings.lambda1 + settings.lambda2 * (cost - mean_cost)
        return g * (p * factor - settings.lambda1 * q)

    return _map_slabs(gradient, *kept, g), None


_emd_from_position.defvjp(_emd_forward, _emd_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_squared_from_position(settings, logits, target_vox):
    return _sum_squared_forward(settings, logits, target_vox)[0]


def _sum_squared_forward(settings, logits, target_vox):
    target_vox = heatmaps.clip_target(target_vox, logits.shape)

    def sums(z, row, target_vox):
        log_h, _ = settings.maps(z, target_vox, row)
        return jnp.sum(jnp.square(jax.nn.sigmoid(z) - jnp.exp(log_h)))

    return _sum_slabs(sums, logits, target_vox), (logits, target_vox)


def _sum_squared_backward(settings, kept, g):
    def gradient(z, row, target_vox, g):
        log_h, _ = settings.maps(z, target_vox, row)
        s = jax.nn.sigmoid(z)
        return g * 2 * (s - jnp.exp(log_h)) * s * (1 - s)

    return _map_slabs(gradient, *kept, g), None


_sum_squared_from_position.defvjp(_sum_squared_forward, _sum_squared_backward)

# On a CPU XLA keeps what several sums share, here targets and distances of all landmarks. So they
# run slab by slab, n rows of [D, H, W] at a time, which stay in the cache. Not along the depth,
# which may be split over devices.
_SLAB_VOXELS = 2**15


def _sum_slabs(sums, logits, *args):
    """sums(logits, 0, *args), which adds up over slabs sums(z, row, *args)."""

    def looped(logits, *args):
        rows = _count_rows(logits.shape)

        def add(i, total):
            z = jax.lax.dynamic_slice_in_dim(logits, i * rows, rows, axis=1)
            return total + sums(z, i * rows, *args)

        kind = jax.eval_shape(sums, logits, 0, *args)
        start = jnp.zeros(kind.shape, kind.dtype)
        return jax.lax.fori_loop(0, logits.shape[1] // rows, add, start)

    def whole(logits, *args):
        return sums(logits, 0, *args)

    return jax.lax.platform_dependent(logits, *args, cpu=looped, default=whole)


def _map_slabs(function, logits, *args):
    """function(logits, 0, *args), [D, H, W], put together from function(z, row, *args)."""

    def looped(logits, *args):
        rows = _count_rows(logits.shape)

        def fill(i, out):
            z = jax.lax.dynamic_slice_in_dim(logits, i * rows, rows, axis=1)
            part = function(z, i * rows, *args)
            return jax.lax.dynamic_update_slice_in_dim(out, part, i * rows, axis=1)

        return jax.lax.fori_loop(0, logits.shape[1] // rows, fill, jnp.zeros_like(logits))

    def whole(logits, *args):
        return function(logits, 0, *args)

    return jax.lax.platform_dependent(logits, *args, cpu=looped, default=whole)


def _count_rows(shape):
    """The most rows, a divisor of H, that a slab may have."""
    d, h, w = shape
    return max(n for n in range(1, h + 1) if h % n == 0 and (n == 1 or n * d * w <= _SLAB_VOXELS))


def compute_losses(logits: jax.Array, targets_vox: jax.Array, **settings: Any) -> jax.Array:
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
    logits: jax.Array, targets_vox: jax.Array, counted: jax.Array, **settings: Any
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
