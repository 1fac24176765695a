"""What lies round the face: a hand, an arm or the cord in front of it, and the womb.

Limbs are in the child's own (x, y, z) mm, the near wall in the probe's beam coordinates, the far
wall in the world's RAS+ mm: neither wall moves, turns or grows with the child.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fetal_jax.phantom import anatomy

KINDS = ("none", "hand", "arm", "cord")
RODS = 7  # of every limb, so that all kinds have arrays of one shape
FAR_MM = 99.0  # distance to a limb that is not there
_TARGETS = ("exL", "exR", "chL", "chR")  # a limb is placed over one of these


class Limb(NamedTuple):
    """Rods with rounded ends, in own mm, and their cores: bone, or the cord's vessel."""

    kind: Array  # [] index of KINDS
    ends: Array  # [RODS, 2, 3] mm
    radii: Array  # [RODS, 2] mm
    core: Array  # [RODS] mm, radius of the core


def sample_limb(key: Array, points: Array, size: Array, kind: Array) -> Limb:
    """Sample a limb of `kind` in front of a part of the face.

    Args:
      key: PRNG key.
      points: [P, 3] the face's points in the child's own mm, in anatomy.POINTS' order.
      size: [] own mm per mm at 29 weeks.
      kind: [] int, index of KINDS.
    """
    pick_key, key = jax.random.split(key)
    targets = jnp.array([anatomy.POINTS.index(label) for label in _TARGETS])
    at = points[jax.random.choice(pick_key, targets)]
    u = jax.random.uniform(key, (5,), minval=-1.0)
    gap = 1.5 * (1.0 + u[0])
    turn = jnp.deg2rad(40.0) * u[1]
    along = jnp.stack([jnp.sin(turn), jnp.cos(turn), jnp.zeros_like(turn)])
    beside = jnp.stack([jnp.cos(turn), -jnp.sin(turn), jnp.zeros_like(turn)])
    forward = jnp.array([0.0, 0.0, 1.0])
    aside = jnp.where(kind == KINDS.index("hand"), 2.0 + 6.0 * jnp.abs(u[2]), 4.0 * u[2])
    outward = jnp.array([1.0, 0.0, 0.0]) * jnp.sign(at[0]) * aside
    at = at + size * (outward + 4.0 * u[3] * along)
    makers = (_make_hand, _make_hand, _make_arm, _make_cord)
    made = [make(at, gap, size, along, beside, forward, u[4]) for make in makers]
    ends, radii, core = (jnp.stack(parts)[kind] for parts in zip(*made, strict=True))
    return Limb(kind, ends, radii, core)


# Makers of a limb's (ends [RODS, 2, 3], radii [RODS, 2], core [RODS]), all in mm.
#   at: [3] the target; gap: [] between it and the limb; size: [] own mm per mm at 29 weeks
#   along, beside, forward: [3] unit vectors of the limb's axes; u: [] uniform in [-1, 1]


def _make_hand(
    at: Array, gap: Array, size: Array, along: Array, beside: Array, forward: Array, u: Array
) -> tuple[Array, Array, Array]:
    """Four fingers over the target, the palm below them, a thumb."""
    wrist = at - 8.0 * size * along + (gap + 4.0 * size) * forward
    root = (jnp.arange(4.0) - 1.5)[:, None] * 5.2 * size * beside[None] + wrist[None]
    length = jnp.array([15.0, 18.0, 17.0, 13.0])[:, None] * size
    fingers = jnp.stack([root, root + length * (along - 0.12 * forward)[None]], axis=1)
    palm = wrist[None] + jnp.array([-4.5, 4.5])[:, None] * size * beside[None]
    palms = jnp.stack([palm - 13.0 * size * along[None], palm], axis=1)
    thumb = wrist - 9.0 * size * along + jnp.sign(u) * 9.0 * size * beside
    thumbs = jnp.stack([thumb, thumb + size * (9.0 * along + 5.0 * jnp.sign(u) * beside)])[None]
    radii = jnp.array([[2.7, 2.2]] * 4 + [[5.0, 4.2]] * 2 + [[3.4, 2.5]]) * size
    core = jnp.array([1.3] * 4 + [2.2] * 2 + [1.3]) * size
    return jnp.concatenate([fingers, palms, thumbs]), radii, core


def _make_arm(
    at: Array, gap: Array, size: Array, along: Array, beside: Array, forward: Array, u: Array
) -> tuple[Array, Array, Array]:
    """One rod, which the others repeat."""
    middle = at + (0.5 * gap + 7.0 * size) * forward
    lean = along + 0.8 * u * beside
    ends = jnp.stack([middle - 45.0 * size * lean, middle + 18.0 * size * lean])
    ends = jnp.broadcast_to(ends[None], (RODS, 2, 3))
    return ends, jnp.full((RODS, 2), 7.0) * size, jnp.full((RODS,), 2.3) * size


def _make_cord(
    at: Array, gap: Array, size: Array, along: Array, beside: Array, forward: Array, u: Array
) -> tuple[Array, Array, Array]:
    """A bent tube whose radius varies along it."""
    t = jnp.linspace(-1.0, 1.0, RODS + 1)[:, None]
    bent = 14.0 * u * (1.0 - t**2) * beside[None] + 2.0 * jnp.sin(7.0 * t) * forward[None]
    path = at[None] + size * (44.0 * t * along[None] + bent) + (0.5 * gap + 5.0) * forward[None]
    ends = jnp.stack([path[:-1], path[1:]], axis=1)
    wave = 4.8 + 0.7 * jnp.sin(9.0 * t[:, 0])
    return ends, jnp.stack([wave[:-1], wave[1:]], axis=1), jnp.full((RODS,), 2.0)


def limb_distances(limb: Limb, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """Signed distances in mm to the limb's surface and to its core; FAR_MM if there is no limb.

    Args:
      x, y, z: the child's own mm, arrays of one shape.
    """
    shape = x.shape
    surface, core = jnp.full(shape, FAR_MM), jnp.full(shape, FAR_MM)
    for i in range(RODS):
        (ax, ay, az), (bx, by, bz) = limb.ends[i]
        dx, dy, dz = bx - ax, by - ay, bz - az
        px, py, pz = x - ax, y - ay, z - az
        t = (px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz + 1e-9)
        t = jnp.clip(t, 0.0, 1.0)
        off = jnp.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2 + (pz - t * dz) ** 2 + 1e-9)
        low, high = limb.radii[i]
        surface = jnp.minimum(surface, off - low - t * (high - low))
        core = jnp.minimum(core, off - limb.core[i])
    there = limb.kind > 0
    return jnp.where(there, surface, FAR_MM), jnp.where(there, core, FAR_MM)


class Womb(NamedTuple):
    """The near wall, a surface over the probe's angles with the placenta, and the far wall.

    The far wall is a bowl with waves over the world's R and S: A = -depth + slope + curvature.
    """

    near: Array  # [] mm from the apex to the fluid
    waves: Array  # [3, 4] of the near wall: height in mm, two wave numbers, phase
    placenta: Array  # [4] thickness in mm, theta and phi of its middle, its width (radians)
    depth: Array  # [] mm from the world's origin back to the far wall
    slope: Array  # [2] mm per mm along R and S
    curvature: Array  # [2] half of it, 1/mm, along R and S
    folds: Array  # [3, 4] of the far wall: height in mm, wave numbers along R and S (1/mm), phase


CLEARANCE_MM = 4.0  # least between a wall and the face
NEAR_MM = (22.0, 46.0)  # range of the near wall's distance before the world's origin
DEPTH_MM = (42.0, 78.0)  # and of the far wall's behind it


def sample_womb(key: Array, ahead_mm: Array, reach: Array, points: Array) -> Womb:
    """Sample a womb that is as it is whatever the face, but that it makes room for it.

    Both walls are sampled in the world; only where one would come nearer to the face than
    CLEARANCE_MM is it moved away, so that it tells no more than this of where the face lies.

    Args:
      key: PRNG key.
      ahead_mm: [] from the apex to the world's origin.
      reach: [P] range of the face's points in mm.
      points: [P, 3] the same points, RAS+ mm.
    """
    u = jax.random.uniform(key, (35,))
    room = jnp.min(reach) - CLEARANCE_MM
    near = jnp.minimum(ahead_mm - NEAR_MM[0] - (NEAR_MM[1] - NEAR_MM[0]) * u[0], room)
    waves = _make_waves(u[1:13], (0.4, 1.6), 14.0)
    gap = jnp.min(reach) - near
    thick = jnp.where(u[13] < 0.35, jnp.minimum(gap, 6.0 + 8.0 * u[14]), 0.0)
    placenta = jnp.stack([thick, u[15] - 0.5, u[16] - 0.5, 0.25 + 0.2 * u[14]])
    womb = Womb(
        near=near,
        waves=waves,
        placenta=placenta,
        depth=DEPTH_MM[0] + (DEPTH_MM[1] - DEPTH_MM[0]) * u[29],
        slope=0.6 * (u[30:32] - 0.5),
        curvature=0.001 + 0.009 * u[32:34],
        folds=_make_waves(u[17:29], (0.5, 2.5), 0.24),
    )
    behind = jnp.min(_ahead_of_far_wall(womb, *points.T))
    return womb._replace(depth=womb.depth + jnp.maximum(CLEARANCE_MM - behind, 0.0))


def _make_waves(u: Array, heights_mm: tuple[float, float], numbers: float) -> Array:
    """Three waves [3, 4] over a surface from u [12] in [0, 1]: height, two wave numbers, phase.

    Wave numbers lie within half of `numbers` to each side of 0.
    """
    low, high = heights_mm
    return jnp.stack(
        [
            low + (high - low) * u[:3],
            numbers * (u[3:6] - 0.5),
            numbers * (u[6:9] - 0.5),
            2.0 * jnp.pi * u[9:],
        ],
        axis=1,
    )


def _add_waves(surface: Array, waves: Array, x: Array, y: Array) -> Array:
    """A surface in mm with waves on it, at x and y."""
    for height, i, j, phase in waves:
        surface = surface + height * jnp.sin(i * x + j * y + phase)
    return surface


def near_wall_distance(womb: Womb, reach: Array, theta: Array, phi: Array) -> Array:
    """Distance in mm to the near wall along a ray, negative inside the wall.

    Args:
      reach: range in mm; `theta`, `phi` in radians, arrays of one shape.
    """
    surface = _add_waves(womb.near, womb.waves, theta, phi)
    thick, theta_0, phi_0, width = womb.placenta
    away = ((theta - theta_0) ** 2 + (phi - phi_0) ** 2) / width**2
    lobes = 1.0 + 0.12 * jnp.sin(31.0 * theta) * jnp.sin(27.0 * phi)
    return reach - surface - thick * lobes * jnp.exp(-(away**2))


def _ahead_of_far_wall(womb: Womb, r: Array, a: Array, s: Array) -> Array:
    """How far world RAS+ mm lie before the far wall, in mm along A."""
    surface = womb.slope[0] * r + womb.slope[1] * s - womb.depth
    surface = surface + womb.curvature[0] * r * r + womb.curvature[1] * s * s
    return a - _add_waves(surface, womb.folds, r, s)


def far_wall_distance(womb: Womb, r: Array, a: Array, s: Array) -> Array:
    """First-order distance in mm to the far wall at world RAS+ mm, negative inside the wall."""
    steep_r = womb.slope[0] + 2.0 * womb.curvature[0] * r
    steep_s = womb.slope[1] + 2.0 * womb.curvature[1] * s
    return _ahead_of_far_wall(womb, r, a, s) / jnp.sqrt(1.0 + steep_r**2 + steep_s**2)
