"""Heatmaps: what a landmark looks like as a target, and how a map is turned back into a point.

Everything is written for one landmark of one example, a map [D, H, W] and a position [3] in voxels
(the centre of the first voxel is 0, 0, 0); `jax.vmap` makes it [B, L].
"""

import itertools

import jax
import jax.numpy as jnp

KINDS = ("gaussian", "exponential")
# Seen from farther away, float32 tells the distances of a grid's voxels less and less apart, and at
# last not at all: a target is taken to lie no farther out.
FARTHEST_VOX = 1000.0
SHALLOW = 0.05  # a dip of 5 %, as a logarithm; between two peaks it is deeper


def clip_target(position_vox: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """A target's position [3], at most FARTHEST_VOX outside a grid (D, H, W) along each axis.

    Up to there it is the position itself, and so are losses and gradients. Farther out it keeps the
    voxel that is nearest to it; distances no longer grow.
    """
    last = jnp.array(shape, jnp.float32) - 1
    return jnp.clip(position_vox, -FARTHEST_VOX, last + FARTHEST_VOX)


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
    gives a distribution (on the nearest voxels) and no NaN. That holds up to `clip_target`.
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
    """Position [3] in voxels, below the voxel: the weighted mean of the peak round the argmax.

    Args:
      logits: [D, H, W]; their argmax (lowest flat index on a tie) is the centre of a ball.
      log_weights: [D, H, W], logarithm of the map up to a constant: the logits themselves for a
        softmax, their log-sigmoid for a sigmoid.
      sharpness: power to which the map is raised.
      radius_vox: radius of the ball; near the border it is cut off alike on both sides. Another
        peak in the ball is left out, see `find_peak`: the mean of two would lie on neither.
    """
    peak = decode_argmax(logits)
    reach = int(radius_vox)
    sizes = [min(2 * reach + 1, n) for n in logits.shape]
    room = jnp.array([n - size for n, size in zip(logits.shape, sizes, strict=True)], jnp.float32)
    start = jnp.clip(peak - reach, 0.0, room)
    window = jax.lax.dynamic_slice(log_weights, tuple(start.astype(jnp.int32)), sizes)
    # offsets from the peak and not coordinates: small numbers keep their digits in float32
    offsets = [
        (jnp.arange(size, dtype=jnp.float32) + (start[axis] - peak[axis])).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
        for axis, size in enumerate(sizes)
    ]
    squared = sum(jnp.square(jnp.broadcast_to(offset, sizes)) for offset in offsets)
    inside = squared <= radius_vox**2
    # a ball cut off by the border on one side only would pull the mean inwards
    for axis, n in enumerate(logits.shape):
        inside &= jnp.abs(offsets[axis]) <= jnp.minimum(peak[axis], n - 1 - peak[axis])
    values = jnp.where(inside, sharpness * window, -jnp.inf)
    values = jnp.where(find_peak(values, squared == 0), values, -jnp.inf)
    weights = jax.nn.softmax(values.reshape(-1)).reshape(sizes)
    return peak + jnp.stack([jnp.sum(weights * offset) for offset in offsets])


def find_peak(values: jax.Array, centre: jax.Array) -> jax.Array:
    """The voxels [D, H, W] of a map that belong to the peak in one of them, as bool.

    From every voxel one gets to a maximum by steps to the highest of the 26 neighbours (a
    watershed). They belong to the peak in the centre where that maximum is it, or where the way
    over to it dips by no more than SHALLOW: a ripple and no peak of its own (an h-maximum: Soille
    2003, Morphological Image Analysis, 6.3). Where a map falls with the distance from a point, all
    of it is one peak.

    Args:
      values: [D, H, W], logarithms; -inf where nothing is looked at.
      centre: [D, H, W] bool, true in the peak's voxel.
    """
    # the highest way from the centre to each voxel, told by its lowest point: a flood
    level = jax.lax.fori_loop(
        0,
        max(values.shape),
        lambda _, level: jnp.minimum(_dilate(level), values),
        jnp.where(centre, values, -jnp.inf),
    )
    _, h, w = values.shape
    steps = sorted(itertools.product((-1, 0, 1), repeat=3), key=any)  # among equals one stays
    padded = jnp.pad(values, 1, constant_values=-jnp.inf)
    starts = jnp.array(steps) + 1
    moves = jnp.array([(a * h + b) * w + c for a, b, c in steps])

    # loops, for 27 slices side by side take thrice as long to compile
    def look(i, best):
        value, move = best
        there = jax.lax.dynamic_slice(padded, starts[i], values.shape)
        return jnp.maximum(value, there), jnp.where(there > value, moves[i], move)

    stay = jnp.zeros(values.shape, moves.dtype)
    _, move = jax.lax.fori_loop(1, len(steps), look, (values, stay))
    top = jnp.arange(values.size) + move.reshape(-1)
    # each time twice as far
    top = jax.lax.fori_loop(0, values.size.bit_length(), lambda _, top: top[top], top)
    dip = jnp.where(jnp.isfinite(values), values - level, jnp.inf).reshape(-1)[top]
    return (dip <= SHALLOW).reshape(values.shape) | centre


def _dilate(values: jax.Array) -> jax.Array:
    """The highest of each voxel and its 26 neighbours: [D, H, W]."""
    for axis in range(3):
        window = [3 if a == axis else 1 for a in range(3)]
        values = jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, window, [1] * 3, "SAME")
    return values


def compute_confidence(
    log_weights: jax.Array, position_vox: jax.Array, *, radius_mm: float, spacing_mm: float
) -> jax.Array:
    """Share of the map within `radius_mm` of a position: a probability in [0, 1]."""
    p = jax.nn.softmax(log_weights.reshape(-1)).reshape(log_weights.shape)
    near = compute_distances(log_weights.shape, position_vox, spacing_mm) <= radius_mm
    return jnp.sum(jnp.where(near, p, 0.0))
