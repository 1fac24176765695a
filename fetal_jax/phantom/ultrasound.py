"""A swept convex probe: from tissue along its rays to a B-mode volume.

Beam arrays are [S, L, R]: planes of the sweep, lines of a plane, samples along a line. All physics
is computed on that grid, in dB and amplitudes; only `convert_scan` knows of voxels. Attenuation and
reflection follow the textbook; amplitudes of scatter are relative to the echo of a flat bone, and
were chosen by eye.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Site(NamedTuple):
    """One hospital's machine. Widths of the point spread are full widths at half maximum."""

    frequency_mhz: Array
    dynamic_range_db: Array
    gain_db: Array
    half_angles_deg: Array  # [2] of a plane, of the sweep
    axial_mm: Array
    lateral_mm: Array  # at REFERENCE_MM; grows with range
    sweep_mm: Array  # as lateral_mm
    field: Array  # as a share of the requested field of view
    spacing: Array  # [3] as a share of the requested spacing, along R, A, S


NEAR_SITE = Site(4.5, 58.0, 3.0, (37.0, 36.0), 0.60, 1.4, 3.0, 1.0, (0.95, 0.95, 1.15))
FAR_SITE = Site(6.0, 48.0, 0.0, (33.0, 38.0), 0.52, 1.2, 3.4, 0.96, (1.15, 0.9, 0.95))
SITES = ("north", "south")


def select_site(site: Array) -> Site:
    """The machine of site 0 or 1."""
    return jax.tree.map(
        lambda a, b: jnp.stack([jnp.asarray(a), jnp.asarray(b)])[site],
        jax.tree.map(jnp.asarray, _as_arrays(NEAR_SITE)),
        jax.tree.map(jnp.asarray, _as_arrays(FAR_SITE)),
    )


def _as_arrays(site: Site) -> Site:
    return Site(*(jnp.array(value, jnp.float32) for value in site))


class Probe(NamedTuple):
    """Where the rays come from, in world RAS+ mm; ranges are measured from the fan's apex."""

    apex: Array  # [3]
    axes: Array  # [3, 3] rows: across a plane, along the sweep, the middle ray
    half_angles: Array  # [2] radians, of a plane and of the sweep
    reach: Array  # [2] mm, nearest and farthest range
    motion: Array  # [3, 3, 2] the child's motion along R, A, S, three sines: mm and phase
    jerk: Array  # [4] a sudden motion: mm along R, A, S, and where in the sweep, -1 to 1


class Media(NamedTuple):
    """Signed distances in mm along the rays, negative inside."""

    skin: Array
    bone: Array  # bone and all that it encloses
    eye: Array
    limb: Array
    core: Array  # of the limb: its bone, or the cord's vessel
    near_wall: Array
    far_wall: Array


REFERENCE_MM = 90.0  # range at which the lateral widths of the point spread are given
FWHM_SD = 2.355  # full width at half maximum of a Gaussian, in sd
# Amplitude of scatter relative to a flat bone's echo.
FLUID, TISSUE, SKIN, BRAIN, EYE, BLOOD, WALL = 0.0025, 0.07, 0.14, 0.035, 0.006, 0.008, 0.085
UNEVENNESS = 0.45  # of tissue, sd of log amplitude
SKIN_MM, SHELL_MM = 1.2, 2.0  # thickness of the skin and of the skull
Z_FLUID, Z_SKIN, Z_TISSUE, Z_BONE = 1.5, 1.9, 1.6, 6.0  # acoustic impedances in MRayl
# Attenuation in dB/cm/MHz, one way.
ATTENUATION = {"tissue": 0.6, "brain": 0.3, "bone": 8.0, "blood": 0.2}
TGC_SHARE = 0.4  # of the loss in soft tissue, compensated by the gain
ROUGHNESS = 0.6  # share of an interface's echo that is speckle
ECHO_MM = 0.45  # half thickness of an interface's echo
HIDDEN_DB = 11.0  # a landmark whose ray loses so much more than the best-seen one's is hidden
TOUCH_MM = 1.5  # a landmark that something comes so near to is hidden


def reflectance(z1: float, z2: float) -> float:
    """Share of the intensity reflected at normal incidence between two impedances in MRayl."""
    return ((z2 - z1) / (z2 + z1)) ** 2


# amplitude of the skin's echo; a flat bone's is 1
SKIN_ECHO = (reflectance(Z_FLUID, Z_SKIN) / reflectance(Z_TISSUE, Z_BONE)) ** 0.5


def sample_probe(key: Array, site: Site, *, aside: Array | bool) -> Probe:
    """Sample a probe 85 to 110 mm before the volume's centre, facing the child within about 20°.

    Args:
      key: PRNG key.
      site: its machine.
      aside: bool [], whether the operator aims past the face, so that part of it is not seen.
    """
    view_key, motion_key = jax.random.split(key)
    n = jax.random.truncated_normal(view_key, -2.2, 2.2, (9,))
    u = jax.random.uniform(motion_key, (22,))
    azimuth, elevation, roll = jnp.deg2rad(jnp.stack([14.0 * n[0], 9.0 * n[1], 8.0 * n[2]]))
    ahead = 97.0 + 5.5 * n[3]
    toward = jnp.stack(
        [
            jnp.sin(azimuth) * jnp.cos(elevation),
            jnp.cos(azimuth) * jnp.cos(elevation),
            jnp.sin(elevation),
        ]
    )
    apex = ahead * toward
    missed = jnp.stack([5.0 * n[4], 0.0 * n[4], 5.0 * n[5]])
    beyond = jnp.where(u[0] < 0.5, -1.0, 1.0) * (44.0 + 20.0 * u[1])
    missed = missed + jnp.where(aside, jnp.stack([beyond, 0.0 * beyond, 0.0 * beyond]), 0.0)
    middle = _unit(missed - apex)
    lateral = _unit(jnp.cross(middle, jnp.stack([-jnp.sin(roll), 0.0 * roll, jnp.cos(roll)])))
    axes = jnp.stack([lateral, jnp.cross(lateral, middle), middle])
    waves = jnp.stack([0.35 * u[1:10].reshape(3, 3), 6.28 * u[10:19].reshape(3, 3)], axis=-1)
    moved = jnp.where(u[19] < 0.2, 1.0, 0.0) * 1.2 * n[6:9]
    half = jnp.deg2rad(site.half_angles_deg) * (1.0 + 0.06 * (u[20] - 0.5))
    return Probe(
        apex,
        axes,
        half,
        jnp.stack([ahead - 58.0, ahead + 46.0]),
        waves,
        jnp.concatenate([moved, 2.0 * u[21:] - 1.0]),
    )


def _unit(v: Array) -> Array:
    return v / jnp.linalg.norm(v)


def beam_grid(probe: Probe, beams: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    """phi [S] and theta [L] in radians, range [R] in mm, of the beam grid's samples.

    Args:
      beams: (S, L, R), static.
    """
    planes, lines, samples = beams
    return (
        jnp.linspace(-1.0, 1.0, planes) * probe.half_angles[1],
        jnp.linspace(-1.0, 1.0, lines) * probe.half_angles[0],
        jnp.linspace(0.0, 1.0, samples) * (probe.reach[1] - probe.reach[0]) + probe.reach[0],
    )


def beam_to_world(probe: Probe, phi: Array, theta: Array, reach: Array) -> tuple[Array, ...]:
    """World RAS+ mm (r, a, s) of phi and theta in radians and range in mm, which broadcast."""
    parts = (
        reach * jnp.sin(theta),
        reach * jnp.cos(theta) * jnp.sin(phi),
        reach * jnp.cos(theta) * jnp.cos(phi),
    )
    return tuple(
        probe.apex[i] + sum(part * probe.axes[j, i] for j, part in enumerate(parts))
        for i in range(3)
    )


def world_to_beam(probe: Probe, r: Array, a: Array, s: Array) -> tuple[Array, Array, Array]:
    """(phi, theta, range) of world RAS+ mm: the inverse of `beam_to_world`."""
    d = (r - probe.apex[0], a - probe.apex[1], s - probe.apex[2])
    across, along, ahead = (sum(probe.axes[j, i] * d[i] for i in range(3)) for j in range(3))
    reach = jnp.sqrt(across**2 + along**2 + ahead**2)
    return jnp.arctan2(along, ahead), jnp.arcsin(jnp.clip(across / reach, -1.0, 1.0)), reach


def in_fan(probe: Probe, phi: Array, theta: Array, reach: Array) -> Array:
    """Whether beam coordinates lie within what the probe scans, bool of their shape."""
    return (
        (jnp.abs(phi) <= probe.half_angles[1])
        & (jnp.abs(theta) <= probe.half_angles[0])
        & (reach >= probe.reach[0])
        & (reach <= probe.reach[1])
    )


def child_motion(probe: Probe, phi: Array) -> tuple[Array, Array, Array]:
    """The child's displacement in mm along R, A, S when the sweep is at phi, in radians."""
    at = phi / probe.half_angles[1]
    after_jerk = jax.nn.sigmoid(40.0 * (at - probe.jerk[3]))
    return tuple(
        after_jerk * probe.jerk[i]
        + sum(
            probe.motion[i, j, 0] * jnp.sin(speed * at + probe.motion[i, j, 1])
            for j, speed in enumerate((2.0, 4.1, 6.7))
        )
        for i in range(3)
    )


def attenuation_db(
    media: Media, step_mm: Array | float, site: Site, core_is_bone: Array | bool
) -> Array:
    """dB lost on the way to each sample of the rays [..., R] and back.

    2 a f depth in each medium, a from ATTENUATION, and 1 - R of the intensity at each surface of
    bone, both ways (R: `reflectance`).

    Args:
      media: distances [..., R].
      step_mm: between samples, broadcasts with the distances.
      site: gives the frequency f.
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
    passed_db = 2.0 * rate * site.frequency_mhz * step_mm / 10.0
    hard = shell | (in_core & core_is_bone)
    before = jnp.concatenate([hard[..., :1], hard[..., :-1]], axis=-1)
    surface_db = -20.0 * jnp.log10(1.0 - reflectance(Z_TISSUE, Z_BONE))
    taken = passed_db + jnp.where(hard != before, surface_db, 0.0)
    return jnp.cumsum(taken, axis=-1) - taken


def time_gain_db(reach: Array, near_mm: Array | float, site: Site) -> Array:
    """dB that time-gain compensation adds at a range `reach` in mm; none at `near_mm`."""
    rate = 2.0 * ATTENUATION["tissue"] * site.frequency_mhz / 10.0
    return TGC_SHARE * rate * (reach - near_mm)


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
    ahead = jnp.concatenate([distance[..., 1:], distance[..., -1:]], axis=-1)
    behind = jnp.concatenate([distance[..., :1], distance[..., :-1]], axis=-1)
    cosine = jnp.clip((behind - ahead) / (2.0 * step_mm), 0.0, 1.0)
    return cosine**power * jnp.exp(-((distance / ECHO_MM) ** 2))


def echo_amplitude(media: Media, step_mm: Array | float, core_is_bone: Array | bool) -> Array:
    """Amplitude of the interfaces' echoes before any loss: √R cos^k, relative to a flat bone's.

    Args:
      media: distances [..., R].
      step_mm: between samples of a ray.
      core_is_bone: bool [], else the limb's core is a vessel.
    """
    wall = _echo(-media.near_wall, step_mm, 2.0) + _echo(media.far_wall, step_mm, 2.0)
    soft = _echo(media.skin, step_mm, 2.0) + _echo(media.limb, step_mm, 2.0) + 0.6 * wall
    hard = _echo(media.bone, step_mm, 1.0)
    hard += jnp.where(core_is_bone, 1.0, 0.1) * _echo(media.core, step_mm, 1.0)
    return SKIN_ECHO * soft + hard


def _spread(size: int, sd: Array) -> Array:
    """Gaussian blur as a matrix [size, size]; in a row ΣG² = 1, so white noise keeps its power."""
    apart = jnp.arange(size)[:, None] - jnp.arange(size)[None, :]
    apart = apart.astype(jnp.float32)
    weights = jnp.exp(-0.5 * (apart / sd) ** 2)
    return weights / jnp.sqrt(jnp.sum(weights**2, axis=1, keepdims=True))


def point_spread(probe: Probe, site: Site, beams: tuple[int, int, int]) -> tuple[Array, ...]:
    """Sd of the point spread in samples of the beam grid `beams`, along sweep, plane and ray.

    Across the ray it is a constant angle, so that its width in mm grows with range.
    """
    planes, lines, samples = beams
    steps = (
        2.0 * probe.half_angles[1] / (planes - 1) * REFERENCE_MM,
        2.0 * probe.half_angles[0] / (lines - 1) * REFERENCE_MM,
        (probe.reach[1] - probe.reach[0]) / (samples - 1),
    )
    widths = (site.sweep_mm, site.lateral_mm, site.axial_mm)
    return tuple(width / FWHM_SD / step for width, step in zip(widths, steps, strict=True))


def detect_envelope(key: Array, scatter: Array, echo: Array, spread: tuple[Array, ...]) -> Array:
    """Envelope [S, L, R] = |G ∗ (√σ n + e)|, n complex noise of unit power, ΣG² = 1.

    Where √σ is constant and e is 0 it is Rayleigh-distributed (mean / sd 1.91), mean square σ.

    Args:
      key: PRNG key of the noise.
      scatter: [S, L, R] amplitude of the scatter.
      echo: [S, L, R] amplitude of interfaces; a share ROUGHNESS adds to √σ, the rest is e.
      spread: sd of G in samples along S, L, R, as of `point_spread`.
    """
    planes, lines, samples = scatter.shape
    noise = jax.random.normal(key, (2, *scatter.shape)) * jnp.sqrt(0.5)
    field = noise * (scatter + ROUGHNESS * echo)[None]
    field = field.at[0].add((1.0 - ROUGHNESS) * echo)
    field = jnp.einsum("ts,nslr->ntlr", _spread(planes, spread[0]), field)
    field = jnp.einsum("kl,nslr->nskr", _spread(lines, spread[1]), field)
    taps = jnp.arange(-3, 4).astype(jnp.float32)
    weights = jnp.exp(-0.5 * (taps / spread[2]) ** 2)
    weights = weights / jnp.sqrt(jnp.sum(weights**2))
    padded = jnp.pad(field, [(0, 0), (0, 0), (0, 0), (3, 3)])
    field = sum(weights[i] * padded[..., i : i + samples] for i in range(7))
    return jnp.sqrt(field[0] ** 2 + field[1] ** 2)


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


def convert_scan(
    picture: Array, probe: Probe, spacing_mm: Array, origin_mm: Array, shape: tuple[int, int, int]
) -> Array:
    """Scan conversion: the beam picture on a world-aligned grid, 0 outside the fan.

    Args:
      picture: [S, L, R].
      probe: whose picture it is.
      spacing_mm: [3] of the grid along R, A, S.
      origin_mm: [3] RAS+ mm of the first voxel's centre.
      shape: (D, H, W) of the grid along R, A, S, static.

    Returns:
      [D, H, W], interpolated linearly.
    """
    ticks = [
        origin_mm[i] + spacing_mm[i] * jnp.arange(shape[i]).astype(jnp.float32) for i in range(3)
    ]
    planes, lines, samples = picture.shape

    def convert_slab(_, r):
        beam = world_to_beam(probe, r, ticks[1][:, None], ticks[2][None, :])
        phi, theta, reach = beam
        at = (
            (phi / probe.half_angles[1] + 1.0) * 0.5 * (planes - 1),
            (theta / probe.half_angles[0] + 1.0) * 0.5 * (lines - 1),
            (reach - probe.reach[0]) / (probe.reach[1] - probe.reach[0]) * (samples - 1),
        )
        value = jax.scipy.ndimage.map_coordinates(picture, at, order=1, mode="nearest")
        return None, jnp.where(in_fan(probe, *beam), value, 0.0)

    return jax.lax.scan(convert_slab, None, ticks[0])[1]
