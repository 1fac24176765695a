"""From tissue along a probe's rays to a B-mode volume.

Beam arrays are [S, L, R]: planes of the sweep, lines of a plane, samples along a line. All physics
is computed on that grid, in dB and amplitudes; `convert_scan` takes the received field from it to
voxels, before its envelope is detected, so that speckle is the same on a beam and between beams.
Attenuation and reflection follow the textbook; amplitudes of scatter are relative to the echo of a
flat bone, and were chosen by eye.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fetal_jax.phantom.machine import Machine
from fetal_jax.phantom.probe import Probe, beam_grid, in_fan, world_to_beam


class Media(NamedTuple):
    """Signed distances in mm along the rays, negative inside."""

    skin: Array
    bone: Array  # bone and all that it encloses
    eye: Array
    limb: Array
    core: Array  # of the limb: its bone, or the cord's vessel
    near_wall: Array
    far_wall: Array


REFERENCE_MM = 90.0  # range at which the width of the point spread along the sweep is given
FOCAL_DEPTH_MM = 45.0  # from the focus to where the beam is √2 times as wide
FWHM_SD = 2.355  # full width at half maximum of a Gaussian, in sd
# Amplitude of scatter relative to a flat bone's echo.
FLUID, TISSUE, SKIN, BRAIN, EYE, BLOOD, WALL = 0.001, 0.07, 0.14, 0.05, 0.006, 0.008, 0.085
UNEVENNESS = 0.45  # of tissue, sd of log amplitude
SKIN_MM, SHELL_MM = 1.2, 1.2  # thickness of the skin and of the skull
Z_FLUID, Z_SKIN, Z_TISSUE, Z_BONE = 1.5, 1.6, 1.6, 6.0  # acoustic impedances in MRayl
# Attenuation in dB/cm/MHz, one way.
ATTENUATION = {"tissue": 0.6, "brain": 0.3, "bone": 8.0, "blood": 0.2}
# Refraction at a curved edge: dB/mm lost within EDGE_MM of a surface that the ray grazes, all of it
# along the surface and none where the cosine to its normal is above EDGE_COSINE.
EDGE_DB_MM, EDGE_MM, EDGE_COSINE = 0.8, 1.0, 0.35
HAZE_MM = 22.0  # range over which near-field clutter fades to 1/e
ROUGHNESS = 0.6  # share of an interface's echo that is speckle
ECHO_MM = 0.45  # half thickness of an interface's echo
HIDDEN_DB = 10.0  # a landmark whose ray loses so much more than the best-seen one's is hidden
TOUCH_MM = 1.5  # a landmark that something comes so near to is hidden


def reflectance(z1: float, z2: float) -> float:
    """Share of the intensity reflected at normal incidence between two impedances in MRayl."""
    return ((z2 - z1) / (z2 + z1)) ** 2


# amplitude of the skin's echo; a flat bone's is 1
SKIN_ECHO = (reflectance(Z_FLUID, Z_SKIN) / reflectance(Z_TISSUE, Z_BONE)) ** 0.5


def _slope(distance: Array, step_mm: Array | float) -> Array:
    """Change of a distance [..., R] per mm along the ray: minus the cosine to the surface."""
    ahead = jnp.concatenate([distance[..., 1:], distance[..., -1:]], axis=-1)
    behind = jnp.concatenate([distance[..., :1], distance[..., :-1]], axis=-1)
    return (ahead - behind) / (2.0 * step_mm)


def _grazing(distance: Array, step_mm: Array | float) -> Array:
    """1 where a ray runs along a surface, 0 where it crosses it or is EDGE_MM away from it."""
    along = 1.0 - jnp.abs(_slope(distance, step_mm)) / EDGE_COSINE
    near = 1.0 - jnp.abs(distance) / EDGE_MM
    return jnp.maximum(along, 0.0) * jnp.maximum(near, 0.0)


def attenuation_db(
    media: Media, step_mm: Array | float, machine: Machine, core_is_bone: Array | bool
) -> Array:
    """dB lost on the way to each sample of the rays [..., R] and back.

    2 a f depth in each medium, a from ATTENUATION, 1 - R of the intensity at each surface of bone,
    both ways (R: `reflectance`), and what is refracted away along an edge of the child.

    Args:
      media: distances [..., R].
      step_mm: between samples, broadcasts with the distances.
      machine: gives the frequency f.
      core_is_bone: bool [], else the limb's core is a vessel.
    """
    in_skin, in_bone = media.skin < 0.0, media.bone < 0.0
    shell = in_bone & (media.bone > -SHELL_MM)
    in_limb, in_core = media.limb < 0.0, media.core < 0.0
    rate = jnp.where(in_skin | in_limb, ATTENUATION["tissue"], 0.0)
    rate = jnp.where((media.near_wall < 0.0) | (media.far_wall < 0.0), ATTENUATION["tissue"], rate)
    rate = jnp.where(in_bone, ATTENUATION["brain"], rate)
    rate = jnp.where(in_core, ATTENUATION["blood"], rate)
    rate = jnp.where(shell | (in_core & core_is_bone), ATTENUATION["bone"], rate)
    passed_db = 2.0 * rate * machine.frequency_mhz * step_mm / 10.0
    grazing = jnp.maximum(_grazing(media.skin, step_mm), _grazing(media.limb, step_mm))
    passed_db = passed_db + EDGE_DB_MM * step_mm * grazing
    hard = shell | (in_core & core_is_bone)
    before = jnp.concatenate([hard[..., :1], hard[..., :-1]], axis=-1)
    surface_db = -20.0 * jnp.log10(1.0 - reflectance(Z_TISSUE, Z_BONE))
    taken = passed_db + jnp.where(hard != before, surface_db, 0.0)
    return jnp.cumsum(taken, axis=-1) - taken


def contact_db(machine: Machine, phi: Array, theta: Array) -> Array:
    """dB lost where the probe has little contact, at angles in radians of one shape."""
    loss = jnp.zeros_like(theta)
    for depth_db, middle, half, end in machine.dropout:
        in_sector = jnp.exp(-(((theta - middle) / half) ** 4))
        loss = loss + depth_db * in_sector * jax.nn.sigmoid(25.0 * (end - phi))
    return loss


def time_gain_db(reach: Array, near_mm: Array | float, machine: Machine) -> Array:
    """dB that time-gain compensation adds at a range `reach` in mm, relative to that at `near_mm`.

    A share of soft tissue's loss, and two bends over 90 mm, as of sliders that are not quite right.
    """
    deep = reach - near_mm
    rate = 2.0 * ATTENUATION["tissue"] * machine.frequency_mhz / 10.0
    bends = machine.time_gain_bend_db
    bent = bends[0] * jnp.sin(jnp.pi / 90.0 * deep) + bends[1] * jnp.sin(jnp.pi / 45.0 * deep)
    return machine.time_gain * rate * deep + bent


def clutter_amplitude(
    near_wall: Array, reach: Array, near_mm: Array | float, machine: Machine
) -> tuple[Array, Array]:
    """Amplitudes of the haze near the probe, [R], and of the near wall's repeated echoes, [..., R].

    Args:
      near_wall: [..., R] distance in mm to the near wall, positive in the fluid.
      reach: [R] range in mm; `near_mm` the nearest.
      machine: gives their strengths.
    """
    haze = 10.0 ** (machine.haze_db / 20.0) * jnp.exp(-(reach - near_mm) / HAZE_MM)
    first = 10.0 ** (machine.reverberation_db / 20.0)
    repeats = sum(
        0.5**k * jnp.exp(-(((near_wall - (k + 1) * machine.repeat_mm) / 0.9) ** 2))
        for k in range(3)
    )
    return haze, first * repeats


def scatter_amplitude(media: Media, uneven: Array, core_is_bone: Array) -> Array:
    """Amplitude of the speckle before any loss, of the media's shape.

    Args:
      media: distances [..., R].
      uneven: [..., R], as of `sample_texture`.
      core_is_bone: bool [], else the limb's core is a vessel.
    """
    scatter = jnp.where(media.skin < -SKIN_MM, TISSUE * uneven, SKIN)
    scatter = jnp.where(media.bone < 0.0, SKIN, scatter)
    scatter = jnp.where(media.bone < -SHELL_MM, BRAIN * uneven, scatter)
    scatter = jnp.where(media.eye < 0.0, EYE, scatter)
    scatter = jnp.where(media.skin > 0.0, FLUID, scatter)
    limb = jnp.where(media.limb < -1.0, TISSUE * uneven, SKIN)
    limb = jnp.where(media.core < 0.0, jnp.where(core_is_bone, SKIN, BLOOD), limb)
    scatter = jnp.where(media.limb < 0.0, limb, scatter)
    outside = (media.near_wall < 0.0) | ((media.far_wall < 0.0) & (media.skin > 0.0))
    return jnp.where(outside, WALL * uneven, scatter)


def _echo(distance: Array, step_mm: Array | float, power: float) -> Array:
    """Echo [..., R] of an interface: cos^power of its angle to the ray, 0 where it faces away."""
    cosine = jnp.clip(-_slope(distance, step_mm), 0.0, 1.0)
    return cosine**power * jnp.exp(-((distance / ECHO_MM) ** 2))


def echo_amplitude(media: Media, step_mm: Array | float, core_is_bone: Array | bool) -> Array:
    """Amplitude of the interfaces' echoes before any loss: √R cos^k, relative to a flat bone's.

    Args:
      media: distances [..., R].
      step_mm: between samples of a ray.
      core_is_bone: bool [], else the limb's core is a vessel.
    """
    in_fluid = (media.near_wall > 0.0) & (media.skin > 0.0) & (media.limb > 0.0)
    far_wall = jnp.where(in_fluid, _echo(media.far_wall, step_mm, 2.0), 0.0)
    wall = _echo(-media.near_wall, step_mm, 2.0) + far_wall
    soft = _echo(media.skin, step_mm, 2.0) + _echo(media.limb, step_mm, 2.0) + 0.6 * wall
    hard = _echo(media.bone, step_mm, 1.0)
    hard += jnp.where(core_is_bone, 1.0, 0.1) * _echo(media.core, step_mm, 1.0)
    return SKIN_ECHO * soft + hard


def point_spread(
    probe: Probe, machine: Machine, beams: tuple[int, int, int], reach: Array
) -> tuple[Array, Array, Array]:
    """Sd [R] of the point spread in samples of the beam grid `beams`, along sweep, plane and ray.

    Along a plane it is narrowest at the focus; along the sweep it is a constant angle, so that its
    width in mm grows with range.

    Args:
      reach: [R] range in mm.
    """
    planes, lines, samples = beams
    away = (reach - machine.focus_mm) / FOCAL_DEPTH_MM
    lateral_mm = machine.lateral_mm * jnp.sqrt(1.0 + away**2)
    ones = jnp.ones_like(reach)
    steps = (
        2.0 * probe.half_angles[1] / (planes - 1) * REFERENCE_MM * ones,
        2.0 * probe.half_angles[0] / (lines - 1) * reach,
        (probe.reach[1] - probe.reach[0]) / (samples - 1) * ones,
    )
    widths = (machine.sweep_mm, lateral_mm, machine.axial_mm)
    return tuple(width / FWHM_SD / step for width, step in zip(widths, steps, strict=True))


TAPS = (3, 5, 3)  # samples to each side that the point spread reaches, along sweep, plane and ray


def _weights(sd: Array, taps: int) -> Array:
    """Gaussian G as weights [2 taps + 1, R] with ΣG² = 1, so that white noise keeps its power."""
    at = jnp.arange(-taps, taps + 1).astype(jnp.float32)
    weights = jnp.exp(-0.5 * (at[:, None] / sd[None, :]) ** 2)
    return weights / jnp.sqrt(jnp.sum(weights**2, axis=0, keepdims=True))


def neighbour_correlation(spread: tuple[Array, ...]) -> Array:
    """Correlation [3, R] between neighbours of spread white noise, along sweep, plane and ray."""
    weights = [_weights(sd, taps) for sd, taps in zip(spread, TAPS, strict=True)]
    return jnp.stack([jnp.sum(w[1:] * w[:-1], axis=0) for w in weights])


def receive_field(key: Array, scatter: Array, echo: Array, spread: tuple[Array, ...]) -> Array:
    """The received field [S, L, R, 5] = G ∗ (√σ n, √σ n', e), n and n' complex noise of unit power.

    Two looks at the scatter, each in quadrature (re n, im n, re n', im n'), and interfaces' echo e.

    Args:
      key: PRNG key of the noise.
      scatter: [S, L, R] amplitude √σ of the scatter.
      echo: [S, L, R] amplitude of interfaces; a share ROUGHNESS adds to √σ, the rest is e.
      spread: sd [R] of G in samples along S, L, R, as of `point_spread`; ΣG² = 1.
    """
    planes, lines, samples = scatter.shape
    noise = jax.random.normal(key, (planes, 2, lines, samples)) * jnp.sqrt(0.5)
    # half a sweep away, noise is as independent as if it were drawn again
    again = jnp.concatenate([noise[planes // 2 :], noise[: planes // 2]])
    amplitude = (scatter + ROUGHNESS * echo)[:, None]
    field = jnp.concatenate(
        [amplitude * noise, amplitude * again, ((1.0 - ROUGHNESS) * echo)[:, None]], axis=1
    )  # [S, 5, L, R]
    sweep, across, along = (_weights(sd, taps) for sd, taps in zip(spread, TAPS, strict=True))
    # along the sweep it is the same at all ranges: one matrix
    bands = sum(sweep[i, 0] * jnp.eye(planes, k=i - TAPS[0]) for i in range(2 * TAPS[0] + 1))
    field = jnp.matmul(bands, field.reshape(planes, -1)).reshape(field.shape)

    def blur_plane(_, plane):
        # a barrier, so that XLA stores what is blurred once and does not compute it for each tap
        plane = jax.lax.optimization_barrier(_blur(plane, across, axis=1))
        return None, jnp.moveaxis(_blur(plane, along, axis=2), 0, -1)

    return jax.lax.scan(blur_plane, None, field)[1]


def _blur(plane: Array, weights: Array, axis: int) -> Array:
    """A plane [5, L, R] blurred along an axis by weights [2 taps + 1, R]; nothing is beyond it."""
    size, taps = plane.shape[axis], len(weights) // 2
    padded = jnp.pad(plane, [(taps, taps) if i == axis else (0, 0) for i in range(3)])
    return sum(
        weights[i][None, None, :] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
        for i in range(2 * taps + 1)
    )


def detect_envelope(field: Array, power: Array | float, compounding: Array | float) -> Array:
    """Envelope [...] of the received field [..., 5]: the looks' mean power, in amplitude.

    Without a second look, and where √σ is constant and e is 0, it is Rayleigh-distributed (mean /
    sd 1.91) with mean square σ.

    Args:
      power: of the noise in the field, that of n where nothing was interpolated.
      compounding: weight of the second look.
    """
    noise = field[..., :4] / jnp.sqrt(jnp.asarray(power))[..., None]
    echo = field[..., 4]
    first = (noise[..., 0] + echo) ** 2 + noise[..., 1] ** 2
    second = (noise[..., 2] + echo) ** 2 + noise[..., 3] ** 2
    return jnp.sqrt((1.0 - compounding) * first + compounding * second)


def compress(envelope: Array, dynamic_range_db: Array | float, gain_db: Array | float) -> Array:
    """Log compression of amplitudes A to [0, 1]: clip(1 + (20 log10 A + gain) / range, 0, 1)."""
    level_db = 20.0 * jnp.log10(envelope + 1e-6) + gain_db
    return jnp.clip(1.0 + level_db / dynamic_range_db, 0.0, 1.0)


def sample_texture(key: Array, beams: tuple[int, int, int]) -> Array:
    """Sample the slow variation of tissue's amplitude over the beam grid [S, L, R], log-normal."""
    coarse = jax.random.normal(
        key, tuple(-(-n // m) for n, m in zip(beams, (3, 6, 10), strict=True))
    )
    return jnp.exp(UNEVENNESS * jax.image.resize(coarse, beams, "linear"))


REDUCTION_MM = 1.3  # sd of the window of speckle reduction
SPECKLE_DB = 5.57  # sd of fully developed speckle after log compression


def reduce_speckle(picture: Array, machine: Machine, spacing_mm: Array) -> Array:
    """Lee's filter on a log-compressed volume [D, H, W]: x ↦ m + (1 - k s² / v) (x - m).

    m and v are the local mean and variance, s² is the speckle's variance and k the share
    `machine.speckle_reduction`: edges, where v is far above s², stay (Lee 1980, IEEE PAMI 2:165).

    Args:
      spacing_mm: [3] between voxels.
    """
    at = jnp.arange(-2, 3).astype(jnp.float32)

    def smooth(volume: Array) -> Array:
        for axis in range(3):
            weights = jnp.exp(-0.5 * (at * spacing_mm[axis] / REDUCTION_MM) ** 2)
            weights = weights / jnp.sum(weights)
            size = volume.shape[axis]
            padded = jnp.pad(volume, [(2, 2) if i == axis else (0, 0) for i in range(3)], "edge")
            volume = sum(
                weights[i] * jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(5)
            )
        return volume

    mean = smooth(picture)
    variance = smooth(picture**2) - mean**2
    speckle = (SPECKLE_DB / machine.dynamic_range_db) ** 2
    taken = machine.speckle_reduction * jnp.minimum(speckle / (variance + 1e-6), 1.0)
    return picture - taken * (picture - mean)


def convert_scan(
    field: Array,
    probe: Probe,
    machine: Machine,
    spacing_mm: Array,
    origin_mm: Array,
    shape: tuple[int, int, int],
) -> Array:
    """Scan conversion: the received field on a world-aligned grid, and its envelope there.

    Both quadratures are interpolated linearly. Between samples that are not the same the noise's
    power falls, to (1-f)² + f² + 2 f (1-f) ρ along each axis; its square root is divided out.

    Args:
      field: [S, L, R, 5], as of `receive_field`.
      probe, machine: whose it is.
      spacing_mm: [3] of the grid along R, A, S.
      origin_mm: [3] RAS+ mm of the first voxel's centre.
      shape: (D, H, W) of the grid along R, A, S, static.

    Returns:
      [D, H, W] amplitudes, 0 outside the fan.
    """
    ticks = [
        origin_mm[i] + spacing_mm[i] * jnp.arange(shape[i]).astype(jnp.float32) for i in range(3)
    ]
    beams = field.shape[:3]
    _, lines, samples = beams
    _, _, reach = beam_grid(probe, beams)
    alike = neighbour_correlation(point_spread(probe, machine, beams, reach))
    rows = field.reshape(-1, field.shape[-1])

    def convert_slab(_, r):
        beam = world_to_beam(probe, r, ticks[1][:, None], ticks[2][None, :])
        phi, theta, reach = beam
        at = (
            phi / probe.half_angles[1] * 0.5 + 0.5,
            theta / probe.half_angles[0] * 0.5 + 0.5,
            (reach - probe.reach[0]) / (probe.reach[1] - probe.reach[0]),
        )
        at = [jnp.clip(a, 0.0, 1.0) * (n - 1) for a, n in zip(at, beams, strict=True)]
        low = [jnp.clip(jnp.floor(a), 0, n - 2) for a, n in zip(at, beams, strict=True)]
        past = [a - b for a, b in zip(at, low, strict=True)]
        s, i, k = (b.astype(jnp.int32) for b in low)
        first = (s * lines + i) * samples + k
        value = 0.0
        for corner in itertools.product((0, 1), repeat=3):
            weight = 1.0
            for f, after in zip(past, corner, strict=True):
                weight = weight * (f if after else 1.0 - f)
            step = (corner[0] * lines + corner[1]) * samples + corner[2]
            value = value + weight[..., None] * rows.at[first + step].get(mode="promise_in_bounds")
        power = 1.0
        for f, same in zip(past, alike, strict=True):
            power = power * (1.0 - 2.0 * f * (1.0 - f) * (1.0 - same[k]))
        envelope = detect_envelope(value, power, machine.compounding)
        return None, jnp.where(in_fan(probe, *beam), envelope, 0.0)

    return jax.lax.scan(convert_slab, None, ticks[0])[1]
