"""From a face to a B-mode volume: echoes, shadows, speckle, log compression, the fan.

World RAS+ in mm. The probe sits in front of the face and looks back along -A; what lies in front
of a point is taken along the array's A axis, though the fan itself spreads.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fetal_jax.phantom.anatomy import Tissue

# Amplitudes of the scatter, relative to a flat bone's echo.
FLUID, TISSUE, SKIN, BRAIN, EYE = 0.003, 0.07, 0.14, 0.04, 0.008
SKIN_ECHO, BONE_ECHO = 0.3, 1.0
# What bone takes, there and back, and what soft tissue takes beyond the gain that makes up for it.
BONE_LOSS_DB_MM, TISSUE_LOSS_DB_MM = 5.0, 0.3
ROUGHNESS = 0.6
UNEVENNESS = 0.5  # of tissue, as the sd of log amplitude at points 6 voxels apart
# Sd of the point spread: widths of 2.2 mm elevational (R) and 1.5 mm lateral (S); none along A,
# where it is under a voxel.
ELEVATIONAL_MM, LATERAL_MM = 2.2 / 2.355, 1.5 / 2.355


class Probe(NamedTuple):
    """Where the sound comes from, and what stands in its way. Angles are kept as tangents."""

    apex: Array  # [3] RAS mm
    aim: Array  # [2] tangent of the central ray towards R and S
    opening: Array  # [2] tangent of half the fan's angle in R and S
    reach: Array  # [2] mm, nearest and farthest range
    shadow_normal: Array  # [2] unit, in the plane of tangents
    shadow_edges: Array  # [2] tangents; the second is below the first where nothing shades
    shadow_range: Array  # [] mm, where the thing that shades begins
    wall: Array  # [] mm, thickness of the uterine wall at the near end of the fan
    dynamic_range_db: Array  # []


def draw_probe(key: Array, *, shadow_share: float = 0.35) -> Probe:
    """A probe 70 to 85 mm in front of the volume's centre, and in a share of cases a shadow."""
    u = jax.random.uniform(key, (14,))  # one draw: each costs a second to compile
    ahead = 70.0 + 15.0 * u[0]
    side, miss = 24.0 * (u[1:3] - 0.5), 10.0 * (u[3:5] - 0.5)
    turn = 2.0 * jnp.pi * u[5]
    edge, width = (4.0 + 22.0 * u[6]) / ahead, (14.0 + 26.0 * u[7]) / ahead
    return Probe(
        apex=jnp.stack([side[0], ahead, side[1]]),
        aim=(miss - side) / ahead,
        opening=jnp.tan(jnp.deg2rad(27.0 + 11.0 * u[8:10])),
        reach=jnp.stack([ahead - 52.0, ahead + 44.0]),
        shadow_normal=jnp.stack([jnp.cos(turn), jnp.sin(turn)]),
        shadow_edges=jnp.stack([edge, jnp.where(u[10] < shadow_share, edge + width, -9.0)]),
        shadow_range=ahead - 42.0 + 6.0 * u[11],
        wall=12.0 * u[13],
        dynamic_range_db=40.0 + 20.0 * u[12],
    )


def look_along(probe: Probe, r: Array, a: Array, s: Array) -> tuple[Array, Array, Array]:
    """At RAS positions: is it in the fan, is it in the occluder's wedge [bool], its range in mm."""
    ahead = jnp.maximum(probe.apex[1] - a, 1.0)
    u = (r - probe.apex[0]) / ahead - probe.aim[0]
    v = (s - probe.apex[2]) / ahead - probe.aim[1]
    reach = jnp.sqrt((r - probe.apex[0]) ** 2 + ahead**2 + (s - probe.apex[2]) ** 2)
    in_fan = (
        (jnp.abs(u) < probe.opening[0])
        & (jnp.abs(v) < probe.opening[1])
        & (reach > probe.reach[0])
        & (reach < probe.reach[1])
    )
    across = u * probe.shadow_normal[0] + v * probe.shadow_normal[1]
    in_wedge = (across > probe.shadow_edges[0]) & (across < probe.shadow_edges[1])
    return in_fan, in_wedge, reach


def find_visible(probe: Probe, points: Array) -> Array:
    """Which of `points` [N, 3] RAS mm the sound reaches: inside the fan, out of the wedge."""
    in_fan, in_wedge, reach = look_along(probe, points[:, 0], points[:, 1], points[:, 2])
    return in_fan & ~(in_wedge & (reach > probe.shadow_range))


def _spread(size: int, sd_vox: Array) -> Array:
    """Gaussian blur along an axis as a matrix [size, size]; ΣG² = 1 keeps white noise's power."""
    apart = jnp.arange(size)[:, None] - jnp.arange(size)[None, :]
    weights = jnp.exp(-0.5 * (apart / sd_vox) ** 2)
    return weights / jnp.sqrt(jnp.sum(weights**2, axis=1, keepdims=True))


def _facing(distance: Array, spacing_mm: float) -> Array:
    """Cosine between the surface's normal and the way back to the probe (+A), 0 on its far side."""
    ahead = jnp.pad(distance, [(0, 0), (0, 1), (0, 0)], mode="edge")[:, 1:, :]
    behind = jnp.pad(distance, [(0, 0), (1, 0), (0, 0)], mode="edge")[:, :-1, :]
    return jnp.clip((ahead - behind) / (2.0 * spacing_mm), 0.0, 1.0)


def render_volume(
    key: Array, tissue: Tissue, probe: Probe, r: Array, a: Array, s: Array, *, spacing_mm: float
) -> Array:
    """B-mode volume [D, H, W] in [0, 1], zero outside the fan.

    `tissue` and the voxels' RAS positions r, a, s are [D, H, W] mm, axes running R, A, S.
    Envelope |G ∗ (√σ n)| with unit-energy G (Rayleigh where σ is even), echoes of surfaces
    ~ cos(angle), then clip(1 + 20 log10(A) / DR, 0, 1).
    """
    noise_key, coarse_key = jax.random.split(key)
    skin, bone, eye = tissue
    shape = skin.shape
    in_fan, in_wedge, reach = look_along(probe, r, a, s)

    # What scatters.
    coarse = jax.random.normal(coarse_key, tuple(-(-n // 6) for n in shape))
    uneven = jnp.exp(UNEVENNESS * jax.image.resize(coarse, shape, "linear"))
    scatter = jnp.where(skin < -1.2, TISSUE, SKIN) * uneven
    scatter = jnp.where(bone < -1.5, BRAIN * uneven, scatter)
    scatter = jnp.where(eye < 0.0, EYE, scatter)
    scatter = jnp.where(skin > 0.0, FLUID, scatter)
    scatter = jnp.where(reach < probe.reach[0] + probe.wall, TISSUE * uneven, scatter)
    blocker = in_wedge & (jnp.abs(reach - probe.shadow_range - 2.5) < 2.5)
    scatter = jnp.where(blocker, 4.0 * SKIN, scatter)

    # What shines: surfaces that face the probe, a voxel and a half thick.
    thick = 0.6 * jnp.maximum(spacing_mm, 1.0)
    echo = SKIN_ECHO * _facing(skin, spacing_mm) ** 2 * jnp.exp(-((skin / thick) ** 2))
    echo += BONE_ECHO * _facing(bone, spacing_mm) * jnp.exp(-((bone / thick) ** 2))

    # What is left of the sound: bone's shell takes it along the way, the occluder nearly all.
    takes = jnp.where(skin < 0.0, TISSUE_LOSS_DB_MM, 0.0)
    takes = spacing_mm * jnp.where((bone < 0.0) & (bone > -2.5), BONE_LOSS_DB_MM, takes)
    loss_db = jax.lax.cumsum(takes, axis=1, reverse=True) - takes
    loss_db += jnp.where(in_wedge & (reach > probe.shadow_range + 5.0), 34.0, 0.0)
    left = 10.0 ** (-loss_db / 20.0)

    n = jax.random.normal(noise_key, (2, *shape)) * jnp.sqrt(0.5)
    # A rough surface sends back part of its echo as speckle.
    field = n * ((scatter + ROUGHNESS * echo) * left)[None]
    field += jnp.stack([(1.0 - ROUGHNESS) * echo * left, jnp.zeros(shape)])
    field = jnp.einsum("kd,ndhs->nkhs", _spread(shape[0], ELEVATIONAL_MM / spacing_mm), field)
    field = jnp.einsum("ndhs,ks->ndhk", field, _spread(shape[2], LATERAL_MM / spacing_mm))
    envelope = jnp.sqrt(field[0] ** 2 + field[1] ** 2)
    bright = 1.0 + 20.0 * jnp.log10(envelope + 1e-6) / probe.dynamic_range_db
    return jnp.where(in_fan, jnp.clip(bright, 0.0, 1.0), 0.0)
