"""`preprocess` again in jax.numpy, for volumes whose size is known only when they come.

What a run exports takes this way: it has neither numpy nor scipy to lean on.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from fetal_jax.frames import Similarity
from fetal_jax.geometry import Grid, align_grid


class Scaled(NamedTuple):
    """A scan with its intensities in [0, 1], and where its voxels lie.

    to_file: [3, 3], mm from the middle of the scan -> voxels from its middle.
    usable: [] bool: there is contrast, all is finite, the affine is not singular.
    """

    voxels: jax.Array  # [X, Y, Z]
    sizes_mm: jax.Array  # [3]
    to_file: jax.Array
    usable: jax.Array


def scale_volume(
    voxels: jax.Array,
    affine: jax.Array,
    percentiles: tuple[float, float],
    *,
    select: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Scaled:
    """Voxels [X, Y, Z] with affine [4, 4], their percentiles at 0 and 1.

    Args:
      select: `select_value`, which it is by default, or what finds the same.
    """
    low, high = (compute_percentile(voxels, p, select) for p in percentiles)
    scaled = jnp.clip((voxels - low) / (high - low), 0.0, 1.0)
    axes = affine[:3, :3]
    sizes_mm = jnp.sqrt(jnp.sum(axes * axes, axis=0))
    # cofactors: no cancellation however far the origin is
    a, b, c = axes.T
    volume = jnp.sum(a * jnp.cross(b, c))
    to_file = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)]) / volume
    usable = jnp.isfinite(voxels).all() & (high > low)
    usable &= jnp.isfinite(affine).all() & (jnp.abs(volume) > 1e-6 * jnp.prod(sizes_mm))
    return Scaled(scaled, sizes_mm, to_file, usable)


def sample_box(scaled: Scaled, box: Grid, frame: Similarity) -> jax.Array:
    """`preprocess.sample_volume` on a box: [D, H, W], NaN throughout where the scan is not usable.

    Args:
      box: along the axes of its frame, in mm of that.
      frame: mm of the frame -> mm from the middle of the scan.
    """
    spacing_mm = frame.scale * box.spacing_mm
    ratio = spacing_mm / scaled.sizes_mm
    sigmas = jnp.sqrt(jnp.maximum(ratio**2 - 1, 0)) / (2 * np.sqrt(2 * np.log(2)))
    smooth = scaled.voxels
    for size, sigma in zip(scaled.voxels.shape, sigmas, strict=True):
        matrix = smoothing_matrix(size, sigma)
        # the axis goes last, so that after three all are where they were
        smooth = jnp.tensordot(smooth, matrix, axes=(0, 1), precision="highest")
    origin = box.affine[:3, 3]
    ticks = [
        start + box.spacing_mm * np.arange(n) for start, n in zip(origin, box.shape, strict=True)
    ]
    at_mm = jnp.meshgrid(*(jnp.asarray(t, jnp.float32) for t in ticks), indexing="ij")
    to_file = jnp.matmul(scaled.to_file, frame.scale * frame.rotation, precision="highest")
    middle = centre_voxel(scaled.voxels)
    middle = middle + jnp.matmul(scaled.to_file, frame.shift, precision="highest")
    places = [
        centre + row[0] * at_mm[0] + row[1] * at_mm[1] + row[2] * at_mm[2]
        for centre, row in zip(middle, to_file, strict=True)
    ]
    sampled = map_coordinates(smooth, places, order=1, mode="constant", cval=0.0)
    # float16, as trained
    sampled = jax.lax.reduce_precision(sampled, exponent_bits=5, mantissa_bits=10)
    return jnp.where(scaled.usable, sampled, jnp.nan)


def centre_box(side: int, spacing_mm: float) -> Grid:
    """The cube of the first look, in mm from the middle of a scan."""
    return align_grid((side,) * 3, spacing_mm, np.full(3, -spacing_mm * (side - 1) / 2))


IDENTITY = Similarity(np.float32(1.0), np.eye(3, dtype=np.float32), np.zeros(3, np.float32))


def centre_voxel(voxels: jax.Array) -> jax.Array:
    """[3], the centre of a volume in its own voxels."""
    return (jnp.array(voxels.shape, jnp.float32) - 1) / 2


def compute_percentile(
    values: jax.Array, percent: float, select: Callable | None = None
) -> jax.Array:
    """`np.percentile`, linear between neighbours, with no sort: XLA's is slow on a CPU."""
    share = Fraction(percent / 100).limit_denominator(10_000)
    last = jnp.array(values.size, jnp.int32) - 1
    # in whole numbers: float32 has no digits for a part of the place among millions
    rest = last % share.denominator * share.numerator
    place = last // share.denominator * share.numerator + rest // share.denominator
    weight = (rest % share.denominator) / share.denominator
    low = (select or select_value)(values, place)
    above = jnp.min(jnp.where(values > low, values, jnp.inf))
    high = jnp.where(jnp.sum(values <= low) > place + 1, low, above)
    return jnp.where(weight > 0, low + weight * (high - low), low)


def select_value(values: jax.Array, place: jax.Array) -> jax.Array:
    """The value at `place` of the sorted values, by bisection of its 32 bits."""

    def flip(bits):  # floats' bits are in order as integers once the negative ones are reversed
        return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)

    keys = flip(jax.lax.bitcast_convert_type(values, jnp.int32))

    def halve(_, bounds):
        low, high = bounds
        middle = (low & high) + ((low ^ high) >> 1)  # (low + high) // 2 would overflow
        enough = jnp.sum(keys <= middle) > place
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    limits = np.iinfo(np.int32)
    key, _ = jax.lax.fori_loop(0, 32, halve, (jnp.int32(limits.min), jnp.int32(limits.max)))
    return jax.lax.bitcast_convert_type(flip(key), jnp.float32)


def sort_value(values: jax.Array, place: jax.Array) -> jax.Array:
    """`select_value` by a sort, for where a value's bits cannot be had."""
    return jnp.sort(values.reshape(-1))[place]


def smoothing_matrix(size: int, sigma: jax.Array) -> jax.Array:
    """`ndimage.gaussian_filter1d` with its defaults as a matrix [N, N]; the identity for σ = 0.

    A matrix needs no bound on σ, and its product is what every platform is fast at.
    """
    places = jnp.arange(size)
    radius = (4 * sigma + 0.5).astype(jnp.int32)
    width = jnp.maximum(sigma, 1e-6)

    def add_tap(tap, matrix):
        source = (places + tap) % (2 * size)  # mirrored at its ends, the line has period 2 N
        source = jnp.minimum(source, 2 * size - 1 - source)
        hit = source[:, None] == places[None, :]
        weight = jnp.exp(-0.5 * jnp.square(tap.astype(jnp.float32) / width))
        return matrix + jnp.where(hit, weight, 0.0)

    matrix = jax.lax.fori_loop(-radius, radius + 1, add_tap, jnp.zeros((size, size)))
    return matrix / jnp.sum(matrix, axis=1, keepdims=True)
