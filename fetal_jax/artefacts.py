"""Artefacts of ultrasound on one volume: speckle, time-gain error, acoustic shadow, dropout.

Intensities are taken as log-compressed, RANGE_DB from 0 to 1, so what multiplies an echo's
amplitude is added here, in dB; a voxel at 0 has no echo, and stays so. A file does not tell where
the probe was: each draw looks from a side of its own, any side alike.

No landmark changes, and none stops being a target, in a shadow and in a dropped sector alike: it is
where it was, and to be told from what is left of the face. `visible` is what its annotator saw.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fetal_jax.augment import Augmentation
from fetal_jax.examples import Examples

RANGE_DB = 60.0  # a machine's dynamic range is 40 to 60 dB
APEX = 1.0  # from a volume's centre to where a convex probe's rays meet, in longest sides
FAN_DEGREES = 35.0  # from the fan's middle to its sides
SHADOW_DEGREES = (4.0, 16.0)  # from the axis of a shadow to its edge
PENUMBRA = 0.5  # the share of that over which the edge fades
ONSET = 0.03  # over which a shadow sets in behind its reflector, in longest sides
GLANCES = 64  # voxels of which the brightest is taken for a strong reflector
SPECKLE_VOX = (0.3, 1.5)  # sd of the point spread along each axis, smallest and largest
SPECKLE_MEAN_DB = -2.507  # of fully developed speckle of unit power: -10 γ / ln 10, γ Euler's


class Beams(NamedTuple):
    """A convex probe's rays through a volume [D, H, W], in shares of its longest side.

    reach: [D, H, W] from the apex, where the rays meet, to each voxel.
    directions: three [D, H, W], the unit vector along each voxel's ray.
    """

    reach: jax.Array
    directions: tuple[jax.Array, jax.Array, jax.Array]


def make_beams(apex: jax.Array, shape: tuple[int, int, int]) -> Beams:
    """The rays from an apex [3], which is given from the volume's centre, in longest sides."""
    if len(shape) != 3 or apex.shape != (3,):
        raise ValueError(f"expected a shape (D, H, W) and an apex [3], got {shape}, {apex.shape}")
    d, h, w = ((jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2) / max(shape) for n in shape)
    away = (
        d[:, None, None] - apex[0],
        h[None, :, None] - apex[1],
        w[None, None, :] - apex[2],
    )
    reach = jnp.sqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2)
    return Beams(reach, tuple(part / reach for part in away))


def sample_apex(key: jax.Array) -> jax.Array:
    """An apex [3] on the sphere of radius APEX about the centre, uniform."""
    return APEX * _unit(jax.random.normal(key, (3,)))


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.sqrt(jnp.sum(vector**2))


def _add_db(volume: jax.Array, level_db: jax.Array) -> jax.Array:
    """Echoes stronger or weaker by dB, cut as a machine cuts them; none comes from nothing."""
    return jnp.where(volume > 0, jnp.clip(volume + level_db / RANGE_DB, 0.0, 1.0), volume)


# ---- what they do ----


def add_speckle(
    key: jax.Array, volume: jax.Array, share: jax.Array | float, spread_vox: jax.Array
) -> jax.Array:
    """Each echo times a correlated Rayleigh amplitude^share; its mean in dB stays.

    The amplitude is |G ∗ n|, n complex noise of unit power and ΣG² = 1 (Goodman's fully developed
    speckle); in dB its sd is 5.57, whatever the echo.

    Args:
      volume: [D, H, W].
      share: of that sd, 0 to 1.
      spread_vox: [3] sd of the Gaussian G along each axis.
    """
    bands = []
    for axis, n in enumerate(volume.shape):
        at = jnp.arange(n, dtype=jnp.float32)
        band = jnp.exp(-0.5 * ((at[:, None] - at[None, :]) / spread_vox[axis]) ** 2)
        bands.append(band / jnp.sqrt(jnp.sum(band**2, axis=1, keepdims=True)))
    noise = jnp.sqrt(0.5) * jax.random.normal(key, (2, *volume.shape))
    real, imaginary = jnp.einsum("ad,bh,cw,qdhw->qabc", *bands, noise)
    speckle_db = 10 * jnp.log10(real**2 + imaginary**2 + 1e-5)  # no logarithm of 0
    return _add_db(volume, share * (speckle_db - SPECKLE_MEAN_DB))


def change_time_gain(volume: jax.Array, beams: Beams, slope_db: jax.Array | float) -> jax.Array:
    """Amplitudes times exp(a · reach), 1 at the centre: depth attenuation compensated wrongly.

    Args:
      slope_db: over a longest side; below 0 what is deep is darker, as where too little is added.
    """
    return _add_db(volume, slope_db * (beams.reach - APEX))


def cast_shadow(
    volume: jax.Array,
    beams: Beams,
    reflector: jax.Array,
    radians: jax.Array | float,
    loss_db: jax.Array | float,
) -> jax.Array:
    """A cone of weaker echoes behind a reflector, along the beam, with soft edges.

    Args:
      reflector: [3] whole, the voxel behind which it begins.
      radians: from the cone's axis to its edge; small.
      loss_db: there and back, in the shadow's core.
    """
    at = tuple(reflector)
    # the chord between two directions is their angle, where that is small
    chord = sum((part - part[at]) ** 2 for part in beams.directions)
    inside = jnp.clip((1 - jnp.sqrt(chord) / radians) / PENUMBRA, 0.0, 1.0)
    behind = jnp.clip((beams.reach - beams.reach[at]) / ONSET - 0.5, 0.0, 1.0)
    return _add_db(volume, -loss_db * inside * behind)


def drop_sector(
    volume: jax.Array,
    beams: Beams,
    across: jax.Array,
    middle: jax.Array | float,
    radians: jax.Array | float,
) -> jax.Array:
    """0 in a sector of the fan, from its near to its far end, as where a probe has no contact.

    Args:
      across: [3] unit vector; a ray's angle in the fan is that to the plane which it is normal to.
      middle: angle of the sector's middle ray.
      radians: from there to its edges.
    """
    sine = sum(part * across[axis] for axis, part in enumerate(beams.directions))
    dropped = (sine > jnp.sin(middle - radians)) & (sine < jnp.sin(middle + radians))
    return jnp.where(dropped, 0.0, volume)


# ---- members of a chain ----


def _change_volume(change: Callable[[jax.Array, jax.Array], jax.Array]) -> Augmentation:
    def augment(key: jax.Array, example: Examples) -> Examples:
        if example.volumes.ndim != 3:
            raise ValueError(f"expected a volume [D, H, W], got {example.volumes.shape}")
        return example._replace(volumes=change(key, example.volumes))

    return augment


def random_speckle(*, max_speckle: float) -> Augmentation:
    """`add_speckle` of a share up to `max_speckle`, of a width along each axis of its own."""

    def change(key, volume):
        key_share, key_spread, key_noise = jax.random.split(key, 3)
        low, high = SPECKLE_VOX
        spread = jax.random.uniform(key_spread, (3,), minval=low, maxval=high)
        return add_speckle(key_noise, volume, max_speckle * jax.random.uniform(key_share), spread)

    return _change_volume(change)


def random_attenuation(*, max_attenuation_db: float) -> Augmentation:
    """`change_time_gain` by up to `max_attenuation_db` over a longest side, too much or little."""

    def change(key, volume):
        key_apex, key_slope = jax.random.split(key)
        beams = make_beams(sample_apex(key_apex), volume.shape)
        slope_db = max_attenuation_db * jax.random.uniform(key_slope, minval=-1.0)
        return change_time_gain(volume, beams, slope_db)

    return _change_volume(change)


def random_shadow(*, max_shadow_db: float) -> Augmentation:
    """`cast_shadow` of up to `max_shadow_db`, behind the brightest of GLANCES random voxels."""

    def change(key, volume):
        key_apex, key_places, key_angle, key_loss = jax.random.split(key, 4)
        beams = make_beams(sample_apex(key_apex), volume.shape)
        limits = jnp.array(volume.shape)[None]
        places = jax.random.randint(key_places, (GLANCES, 3), 0, limits)
        reflector = places[jnp.argmax(volume[tuple(places.T)])]
        low, high = SHADOW_DEGREES
        degrees = jax.random.uniform(key_angle, minval=low, maxval=high)
        loss_db = max_shadow_db * jax.random.uniform(key_loss)
        return cast_shadow(volume, beams, reflector, jnp.deg2rad(degrees), loss_db)

    return _change_volume(change)


def random_dropout(*, max_dropout_degrees: float) -> Augmentation:
    """`drop_sector` of up to `max_dropout_degrees` from edge to edge, anywhere in the fan."""

    def change(key, volume):
        key_apex, key_across, key_middle, key_width = jax.random.split(key, 4)
        apex = sample_apex(key_apex)
        across = _unit(jnp.cross(apex, jax.random.normal(key_across, (3,))))
        fan = jnp.deg2rad(FAN_DEGREES)
        middle = jax.random.uniform(key_middle, minval=-fan, maxval=fan)
        half = 0.5 * jnp.deg2rad(max_dropout_degrees) * jax.random.uniform(key_width)
        return drop_sector(volume, make_beams(apex, volume.shape), across, middle, half)

    return _change_volume(change)
