"""`preprocess` again in jax.numpy, for volumes whose size is known only when they come.

What a run exports takes this way: it has neither numpy nor scipy to lean on.
"""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from fetal_jax.data.preprocess import Preprocessing


def prepare_volume(voxels: jax.Array, affine: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """`preprocess.prepare_volume` on the grid in the middle of voxels [X, Y, Z] with affine [4, 4].

    NaN throughout where the voxels have no contrast or are not finite, or the affine is singular.
    """
    low, high = (compute_percentile(voxels, p) for p in preprocessing.percentiles)
    scaled = jnp.clip((voxels - low) / (high - low), 0.0, 1.0)
    axes = affine[:3, :3]
    sizes_mm = jnp.sqrt(jnp.sum(axes * axes, axis=0))
    ratio = preprocessing.spacing_mm / sizes_mm
    sigmas = jnp.sqrt(jnp.maximum(ratio**2 - 1, 0)) / (2 * np.sqrt(2 * np.log(2)))
    for size, sigma in zip(voxels.shape, sigmas, strict=True):
        matrix = smoothing_matrix(size, sigma)
        # the axis goes last, so that after three all are where they were
        scaled = jnp.tensordot(scaled, matrix, axes=(0, 1), precision="highest")
    # cofactors, and from the centre: no cancellation however far the origin is
    a, b, c = axes.T
    volume = jnp.sum(a * jnp.cross(b, c))
    to_file = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)]) / volume
    side = preprocessing.side
    offset = preprocessing.spacing_mm * (jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2)
    right, anterior, superior = jnp.meshgrid(offset, offset, offset, indexing="ij")
    places = [
        centre + row[0] * right + row[1] * anterior + row[2] * superior
        for centre, row in zip(centre_voxel(voxels), to_file, strict=True)
    ]
    grid = map_coordinates(scaled, places, order=1, mode="constant", cval=0.0)
    grid = jax.lax.reduce_precision(grid, exponent_bits=5, mantissa_bits=10)  # float16, as trained
    usable = jnp.isfinite(voxels).all() & (high > low)
    usable &= jnp.isfinite(affine).all() & (jnp.abs(volume) > 1e-6 * jnp.prod(sizes_mm))
    return jnp.where(usable, grid, jnp.nan)


def centre_voxel(voxels: jax.Array) -> jax.Array:
    """[3], the centre of a volume in its own voxels."""
    return (jnp.array(voxels.shape, jnp.float32) - 1) / 2


def compute_percentile(values: jax.Array, percent: float) -> jax.Array:
    """`np.percentile`, linear between neighbours, with no sort: XLA's is slow on a CPU."""
    share = Fraction(percent / 100).limit_denominator(10_000)
    last = jnp.array(values.size, jnp.int32) - 1
    # in whole numbers: float32 has no digits for a part of the place among millions
    rest = last % share.denominator * share.numerator
    place = last // share.denominator * share.numerator + rest // share.denominator
    weight = (rest % share.denominator) / share.denominator
    low = select_value(values, place)
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
