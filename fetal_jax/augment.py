"""Random rotation, scale, shift and intensity of one example, in one resampling.

The volume [D, H, W] is sampled once, at the places that the inverse of the motion gives; the
landmarks [L, 3] are moved by the motion itself, in closed form, so that they stay exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


class Motion(NamedTuple):
    """x ↦ matrix (x - centre) + centre + shift, in voxels: [3, 3] and [3]."""

    matrix: jax.Array
    shift: jax.Array


def sample_rotation(key: jax.Array, max_degrees: float) -> jax.Array:
    """A rotation matrix [3, 3], uniform among the rotations of at most `max_degrees` (180 is all).

    Uniform over rotations means an angle with density 1 - cos θ about a uniform axis.
    """
    key_angle, key_axis = jax.random.split(key)
    angles = jnp.linspace(0.0, jnp.deg2rad(max_degrees), 513)
    share = angles - jnp.sin(angles)
    angle = jnp.interp(jax.random.uniform(key_angle) * share[-1], share, angles)
    x, y, z = jax.random.normal(key_axis, (3,))
    cross = jnp.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]) / jnp.sqrt(x * x + y * y + z * z)
    squared = jnp.matmul(cross, cross, precision="highest")
    return jnp.eye(3) + jnp.sin(angle) * cross + (1 - jnp.cos(angle)) * squared  # Rodrigues


def sample_motion(
    key: jax.Array, *, max_degrees: float, max_scale: float, max_shift_vox: float
) -> Motion:
    """A rotation, a scale in [1 - s, 1 + s] and a shift in a cube of side 2 `max_shift_vox`."""
    key_rotation, key_scale, key_shift = jax.random.split(key, 3)
    scale = 1 + max_scale * jax.random.uniform(key_scale, minval=-1.0)
    shift = max_shift_vox * jax.random.uniform(key_shift, (3,), minval=-1.0)
    return Motion(scale * sample_rotation(key_rotation, max_degrees), shift)


def move_points(points_vox: jax.Array, motion: Motion, shape: tuple[int, int, int]) -> jax.Array:
    """Landmarks [L, 3] in voxels, moved with the volume."""
    if points_vox.ndim != 2 or points_vox.shape[-1] != 3 or len(shape) != 3:
        raise ValueError(
            f"expected points [L, 3] and a volume [D, H, W], got {points_vox.shape} and {shape}"
        )
    centre = _centre(shape)[None]
    moved = jnp.matmul(points_vox - centre, motion.matrix.T, precision="highest")
    return moved + centre + motion.shift[None]


def move_volume(volume: jax.Array, motion: Motion) -> jax.Array:
    """The volume [D, H, W] moved, trilinear; 0 where it comes from outside."""
    if volume.ndim != 3:
        raise ValueError(f"expected a volume [D, H, W], got {volume.shape}")
    inverse = jnp.linalg.inv(motion.matrix)
    centre = _centre(volume.shape)
    start = centre - jnp.matmul(inverse, centre + motion.shift, precision="highest")
    d, h, w = (jnp.arange(n, dtype=jnp.float32) for n in volume.shape)
    # products by hand: a matrix product would run in low precision on some accelerators
    source = [
        row[0] * d[:, None, None] + row[1] * h[None, :, None] + row[2] * w[None, None, :] + offset
        for row, offset in zip(inverse, start, strict=True)
    ]
    return map_coordinates(volume, source, order=1, mode="constant", cval=0.0)


def change_intensity(
    key: jax.Array, volume: jax.Array, *, max_gamma: float, max_gain: float, max_noise: float
) -> jax.Array:
    """gain · x^γ + noise, with γ in [1/(1+g), 1+g], the gain likewise, and noise of a random sd."""
    key_gamma, key_gain, key_sd, key_noise = jax.random.split(key, 4)

    def factor(k, limit):
        return (1 + limit) ** jax.random.uniform(k, minval=-1.0)

    gained = factor(key_gain, max_gain) * jnp.maximum(volume, 0.0) ** factor(key_gamma, max_gamma)
    sd = max_noise * jax.random.uniform(key_sd)
    return gained + sd * jax.random.normal(key_noise, volume.shape)


def augment(
    key: jax.Array,
    volume: jax.Array,
    points_vox: jax.Array,
    counted: jax.Array,
    *,
    max_degrees: float,
    max_scale: float,
    max_shift_vox: float,
    max_gamma: float,
    max_gain: float,
    max_noise: float,
    mirror: tuple[int, ...] | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One random version of an example.

    Args:
      key: decides everything.
      volume: [D, H, W], intensities in [0, 1].
      points_vox: [L, 3].
      counted: [L] bool, the landmarks to train on.
      mirror: for each landmark the index of the one on the other side: every second example is
        then flipped along the first axis (Right), and its landmarks change names. None: no flips.

    Returns:
      volume [D, H, W], points [L, 3] and counted [L], now false also where the point has left the
      volume.
    """
    key_motion, key_intensity, key_flip = jax.random.split(key, 3)
    motion = sample_motion(
        key_motion, max_degrees=max_degrees, max_scale=max_scale, max_shift_vox=max_shift_vox
    )
    if mirror is not None:
        flip = jax.random.bernoulli(key_flip)
        motion = motion._replace(matrix=motion.matrix * jnp.array([[-1.0, 1.0, 1.0]]) ** flip)
        other = jnp.array(mirror)
        points_vox = jnp.where(flip, points_vox[other], points_vox)
        counted = jnp.where(flip, counted[other], counted)
    points = move_points(points_vox, motion, volume.shape)
    limit = jnp.array(volume.shape, jnp.float32)[None] - 0.5
    inside = jnp.all((points >= -0.5) & (points <= limit), axis=-1)
    moved = change_intensity(
        key_intensity,
        move_volume(volume, motion),
        max_gamma=max_gamma,
        max_gain=max_gain,
        max_noise=max_noise,
    )
    return moved, points, counted & inside


def _centre(shape):
    return (jnp.array(shape, jnp.float32) - 1) / 2
