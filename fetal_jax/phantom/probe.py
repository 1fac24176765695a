"""A swept convex probe: where its rays go, and how the child moves meanwhile.

Beam coordinates are phi, the angle of a plane in the sweep, theta, that of a line in its plane
(radians), and the range from the fan's apex (mm).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fetal_jax.phantom.machine import Machine


class Probe(NamedTuple):
    """Where the rays come from, in world RAS+ mm; ranges are measured from the fan's apex."""

    apex: Array  # [3]
    axes: Array  # [3, 3] rows: across a plane, along the sweep, the middle ray
    half_angles: Array  # [2] radians, of a plane and of the sweep
    reach: Array  # [2] mm, nearest and farthest range
    motion: Array  # [3, 3, 2] the child's motion along R, A, S, three sines: mm and phase
    jerk: Array  # [4] a sudden motion: mm along R, A, S, and where in the sweep, -1 to 1


def sample_probe(key: Array, machine: Machine, *, aside: Array | bool) -> Probe:
    """Sample a probe 85 to 110 mm before the volume's centre, facing the child within about 20°.

    Args:
      key: PRNG key.
      machine: its settings.
      aside: bool [], whether the operator aims past the face, so that part of it is not seen.
    """
    view_key, motion_key = jax.random.split(key)
    n = jax.random.truncated_normal(view_key, -2.2, 2.2, (9,))
    u = jax.random.uniform(motion_key, (23,))
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
    half = jnp.deg2rad(machine.half_angles_deg) * (1.0 + 0.06 * (u[20] - 0.5))
    return Probe(
        apex,
        axes,
        half,
        jnp.stack([ahead - 58.0, ahead + 42.0 + 8.0 * u[22]]),
        waves,
        jnp.concatenate([moved, 2.0 * u[21:22] - 1.0]),
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
