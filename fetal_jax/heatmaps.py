"""Heatmaps: what a landmark looks like as a target, and how a map is turned back into a point.

Everything is written for one landmark of one example, a map [D, H, W] and a position [3] in voxels
(the centre of the first voxel is 0, 0, 0); `jax.vmap` makes it [B, L].
"""

import jax
import jax.numpy as jnp

KINDS = ("gaussian", "exponential")


def compute_distances(
    shape: tuple[int, int, int], position_vox: jax.Array, spacing_mm: float
) -> jax.Array:
    """Distance in mm of every voxel's centre to a position: [D, H, W].

    Args:
      shape: D, H, W.
      position_vox: [3], continuous, anywhere.
      spacing_mm: side of an (isotropic) voxel.
    """
    if position_vox.shape != (3,):
        raise ValueError(f"expected one position [3], got {position_vox.shape}")
    d, h, w = (
        jnp.square(jnp.arange(n, dtype=jnp.float32) - position_vox[axis])
        for axis, n in enumerate(shape)
    )
    squared = d[:, None, None] + h[None, :, None] + w[None, None, :]
    return spacing_mm * jnp.sqrt(squared)


def log_heatmap(distance_mm: jax.Array, *, kind: str, width_mm: float) -> jax.Array:
    """Logarithm of `render_heatmap` as a function of distance; finite however far the landmark."""
    if kind == "exponential":
        return -distance_mm / (2 * width_mm**2)
    if kind == "gaussian":
        return -jnp.square(distance_mm) / (2 * width_mm**2)
    raise ValueError(f"expected a heatmap kind of {KINDS}, got {kind!r}")


def render_heatmap(distance_mm: jax.Array, *, kind: str, width_mm: float) -> jax.Array:
    """Heatmap with a peak of 1, from distances in mm (any shape).

    "exponential" is the study's formula as printed, exp(-r / (2 α²)), with α = `width_mm` (α² then
    counts as mm); "gaussian" is exp(-r² / (2 σ²)), with σ = `width_mm`.
    """
    return jnp.exp(log_heatmap(distance_mm, kind=kind, width_mm=width_mm))


def log_target(distance_mm: jax.Array, *, kind: str, width_mm: float) -> jax.Array:
    """Logarithm of the target distribution q = H / ΣH over the volume: [D, H, W].

    Normalised as a softmax of log H, so a landmark far outside, where H is 0 in float32, still
    gives a distribution (on the nearest voxels) and no NaN.
    """
    log_h = log_heatmap(distance_mm, kind=kind, width_mm=width_mm)
    return jax.nn.log_softmax(log_h, axis=(0, 1, 2))  # takes the maximum off first: no lost digits


def decode_argmax(logits: jax.Array) -> jax.Array:
    """Voxel [3] of the highest logit; the lowest flat index among equals."""
    flat = jnp.argmax(logits.reshape(-1))
    return jnp.stack(jnp.unravel_index(flat, logits.shape)).astype(jnp.float32)


def decoder_settings(*, kind: str, width_mm: float, spacing_mm: float) -> dict[str, float]:
    """Sharpness and radius for `decode_landmark` that suit a target.

    A mean in a ball is unbiased only where the ball holds the whole peak. So the peak of the target
    is brought, by a power, to a spread that a small ball holds: a gaussian of at most 1.5 voxels in
    a ball of 4 sd, or an exponential whose length is 0.75 voxel in one of 8 lengths.
    """
    if kind == "gaussian":
        sigma = min(width_mm, 1.5 * spacing_mm)
        return {"sharpness": (width_mm / sigma) ** 2, "radius_vox": 4 * sigma / spacing_mm}
    if kind == "exponential":
        return {"sharpness": 2 * width_mm**2 / (0.75 * spacing_mm), "radius_vox": 6.0}
    raise ValueError(f"expected a heatmap kind of {KINDS}, got {kind!r}")


def decode_landmark(
    logits: jax.Array, log_weights: jax.Array, *, sharpness: float, radius_vox: float
) -> jax.Array:
    """Position [3] in voxels, below the voxel: the weighted mean in a ball round the argmax.

    Args:
      logits: [D, H, W]; their argmax (lowest flat index on a tie) is the ball's centre.
      log_weights: [D, H, W], logarithm of the map up to a constant: the logits themselves for a
        softmax, their log-sigmoid for a sigmoid.
      sharpness: power to which the map is raised.
      radius_vox: radius of the ball; near the border it is cut off alike on both sides.
    """
    peak = decode_argmax(logits)
    inside = compute_distances(logits.shape, peak, 1.0) <= radius_vox
    # offsets from the peak and not coordinates: small numbers keep their digits in float32
    offsets = [
        (jnp.arange(n, dtype=jnp.float32) - peak[axis]).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
        for axis, n in enumerate(logits.shape)
    ]
    # a ball cut off by the border on one side only would pull the mean inwards
    for axis, n in enumerate(logits.shape):
        inside &= jnp.abs(offsets[axis]) <= jnp.minimum(peak[axis], n - 1 - peak[axis])
    weights = jax.nn.softmax(jnp.where(inside, sharpness * log_weights, -jnp.inf).reshape(-1))
    weights = weights.reshape(logits.shape)
    return peak + jnp.stack([jnp.sum(weights * offset) for offset in offsets])


def compute_confidence(
    log_weights: jax.Array, position_vox: jax.Array, *, radius_mm: float, spacing_mm: float
) -> jax.Array:
    """Share of the map within `radius_mm` of a position: a probability in [0, 1]."""
    p = jax.nn.softmax(log_weights.reshape(-1)).reshape(log_weights.shape)
    near = compute_distances(log_weights.shape, position_vox, spacing_mm) <= radius_mm
    return jnp.sum(jnp.where(near, p, 0.0))
