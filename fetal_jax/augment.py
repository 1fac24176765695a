"""Random rotation, scale, shift, reflection and intensity of one example, in one resampling.

An augmentation is a function (key, example) -> example of one `Examples` without its B, and a chain
of them is one too: `jax.vmap` makes it a batch's. One that moves things is a `Spatial`: it says
where to sample, a chain puts all that its members say together, and the volume is resampled once.
The landmarks are moved by the motion itself, in closed form, so that they stay exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from fetal_jax.examples import Examples

Places = Sequence[jax.Array]  # three arrays that broadcast to [D, H, W]: coordinates in voxels


class Motion(NamedTuple):
    """x ↦ matrix (x - centre) + centre + shift, in voxels: [3, 3] and [3]."""

    matrix: jax.Array
    shift: jax.Array


class Warp(NamedTuple):
    """A displacement that is no motion, as a pair of functions that undo each other.

    pull: places in the result -> places in the source, where its voxels come from.
    push: points [L, 3] in the source -> where they are in the result.
    """

    pull: Callable[[Places], Places]
    push: Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)  # a tuple could not be jitted
class Spatial:
    """An augmentation that moves things.

    sample: (key, example) -> (the motion or warp, the example with its landmarks renamed where the
      motion asks for that); it leaves the volume alone.
    """

    sample: Callable[[jax.Array, Examples], tuple[Motion | Warp, Examples]]

    def __call__(self, key: jax.Array, example: Examples) -> Examples:
        motion, example = self.sample(key, example)
        return resample(example, [motion])


Augmentation = Spatial | Callable[[jax.Array, Examples], Examples]


def chain(*members: Augmentation) -> Augmentation:
    """One augmentation of several; each member draws with a key of its own, by its place.

    The spatial ones are written as matrices are multiplied, the last acts first; the volume is
    sampled once. After them the others run, the first one first; a chain is one of these, and
    samples the volume once more if it moves things.
    """

    def augment(key: jax.Array, example: Examples) -> Examples:
        keyed = list(zip(jax.random.split(key, len(members)), members, strict=True))
        motions = []
        for own, member in reversed(keyed):
            if isinstance(member, Spatial):
                motion, example = member.sample(own, example)
                motions.append(motion)
        if motions:
            example = resample(example, motions)
        for own, member in keyed:
            if not isinstance(member, Spatial):
                example = member(own, example)
        return example

    return augment


def resample(example: Examples, motions: Sequence[Motion | Warp]) -> Examples:
    """The example moved by several motions, the first one first, its volume sampled once.

    A landmark that leaves the volume is neither present nor visible any more. The affine stays that
    of the grid before.
    """
    shape = example.volumes.shape
    joined: list[Motion | Warp] = []
    for motion in motions:  # motions beside each other are one
        if joined and isinstance(motion, Motion) and isinstance(joined[-1], Motion):
            motion = compose_motions(joined.pop(), motion)
        joined.append(motion)
    warps = [_to_warp(motion, shape) for motion in joined]
    points = example.points_vox
    for warp in warps:
        points = warp.push(points)
    places: Places = _index(shape)
    for warp in reversed(warps):
        places = warp.pull(places)
    limit = jnp.array(shape, jnp.float32)[None] - 0.5
    inside = jnp.all((points >= -0.5) & (points <= limit), axis=-1)
    return example._replace(
        volumes=_sample(example.volumes, places),
        points_vox=points,
        present=example.present & inside,
        visible=example.visible & inside,
    )


def _to_warp(motion: Motion | Warp, shape) -> Warp:
    if isinstance(motion, Warp):
        return motion
    return Warp(
        pull=partial(_pull, motion, shape), push=partial(move_points, motion=motion, shape=shape)
    )


# ---- motions ----


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


def compose_motions(first: Motion, then: Motion) -> Motion:
    """One motion that does what two do, one after the other."""
    matrix = jnp.matmul(then.matrix, first.matrix, precision="highest")
    shift = jnp.matmul(then.matrix, first.shift, precision="highest") + then.shift
    return Motion(matrix, shift)


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
    return _sample(volume, _pull(motion, volume.shape, _index(volume.shape)))


def _index(shape) -> Places:
    """The voxels' own coordinates, as arrays that broadcast."""
    d, h, w = (jnp.arange(n, dtype=jnp.float32) for n in shape)
    return d[:, None, None], h[None, :, None], w[None, None, :]


def _pull(motion: Motion, shape, places: Places) -> Places:
    """Where a motion takes the voxels at `places` from."""
    inverse = jnp.linalg.inv(motion.matrix)
    centre = _centre(shape)
    start = centre - jnp.matmul(inverse, centre + motion.shift, precision="highest")
    d, h, w = places
    # products by hand: a matrix product would run in low precision on some accelerators
    return [
        row[0] * d + row[1] * h + row[2] * w + offset
        for row, offset in zip(inverse, start, strict=True)
    ]


def _sample(volume: jax.Array, places: Places) -> jax.Array:
    return map_coordinates(volume, places, order=1, mode="constant", cval=0.0)


def _centre(shape):
    return (jnp.array(shape, jnp.float32) - 1) / 2


# ---- members of a chain ----


def random_motion(*, max_degrees: float, max_scale: float, max_shift_vox: float) -> Spatial:
    """`sample_motion`, as an augmentation."""

    def sample(key, example):
        motion = sample_motion(
            key, max_degrees=max_degrees, max_scale=max_scale, max_shift_vox=max_shift_vox
        )
        return motion, example

    return Spatial(sample)


def random_flip(mirror: Sequence[int]) -> Spatial:
    """Every second example reflected along its first axis (Right); its landmarks change names.

    Args:
      mirror: for each landmark the index of the one on the other side.
    """

    def sample(key, example):
        flip = jax.random.bernoulli(key)
        other = jnp.array(mirror)
        renamed = example._replace(
            points_vox=jnp.where(flip, example.points_vox[other], example.points_vox),
            present=jnp.where(flip, example.present[other], example.present),
            visible=jnp.where(flip, example.visible[other], example.visible),
        )
        sign = jnp.where(flip, -1.0, 1.0)
        return Motion(jnp.eye(3).at[0, 0].set(sign), jnp.zeros(3)), renamed

    return Spatial(sample)


def random_intensity(*, max_gamma: float, max_gain: float, max_noise: float) -> Augmentation:
    """`change_intensity`, as an augmentation."""

    def augment(key, example):
        volume = change_intensity(
            key, example.volumes, max_gamma=max_gamma, max_gain=max_gain, max_noise=max_noise
        )
        return example._replace(volumes=volume)

    return augment


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
