"""A cohort of phantoms: ages as in the study, a pose left over from alignment, one key each."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fetal_jax.phantom import anatomy, ultrasound

# Completed weeks and number of volumes of the study.
AGE_COUNTS = {
    20: 82, 24: 6, 25: 45, 26: 195, 27: 154, 28: 110, 29: 55,
    30: 34, 31: 16, 32: 4, 33: 2, 35: 16, 36: 4, 38: 2,
}  # fmt: skip
ROTATION_SD_DEG = 6.0
SHIFT_SD_MM = 4.0
CUT_SD = 2.5
ROOM_MM = 44.0  # every landmark is kept this near to the volume's centre, on each axis


class PhantomCase(NamedTuple):
    """One simulated examination. The world's origin is the centre of the volume."""

    volume: Array  # [D, H, W] in [0, 1], axes running Right, Anterior, Superior
    landmarks: Array  # [19, 3] RAS+ mm
    visible: Array  # [19] bool


class Pose(NamedTuple):
    """From the child's own RAS mm to the world's: rotation @ (p - centre) + shift."""

    rotation: Array  # [3, 3]
    centre: Array  # [3] mm
    shift: Array  # [3] mm


class Scene(NamedTuple):
    """All of a case but its volume: a few hundred numbers, cheap to draw."""

    face: anatomy.Face
    pose: Pose
    probe: ultrasound.Probe
    landmarks: Array  # [19, 3] RAS+ mm
    visible: Array  # [19] bool
    image_key: Array


def draw_ages(key: Array, n: int) -> Array:
    """Gestational ages [n] in weeks from the study's counts; the i-th does not depend on n."""
    weeks = jnp.array(list(AGE_COUNTS), jnp.float32)
    share = jnp.array(list(AGE_COUNTS.values()), jnp.float32)
    share = share / jnp.sum(share)
    draw = jax.vmap(lambda i: jax.random.choice(jax.random.fold_in(key, i), weeks, p=share))
    return draw(jnp.arange(n))


def rotate_about_axes(angles: Array) -> Array:
    """Rotation [3, 3] by `angles` [3] in radians about R, then A, then S."""
    (ca, cb, cc), (sa, sb, sc) = jnp.cos(angles), jnp.sin(angles)
    return jnp.array([
        [cb * cc, sa * sb * cc - ca * sc, ca * sb * cc + sa * sc],
        [cb * sc, sa * sb * sc + ca * cc, ca * sb * sc - sa * cc],
        [-sb, sa * cb, ca * cb],
    ])  # fmt: skip


def draw_pose(key: Array, points: Array) -> Pose:
    """What alignment leaves: 6° and 4 mm round the middle of the face's `points` [N, 3] RAS mm."""
    turn, shift = jax.random.truncated_normal(key, -CUT_SD, CUT_SD, (2, 3))
    rotation = rotate_about_axes(jnp.deg2rad(ROTATION_SD_DEG * turn))
    centre = 0.5 * (jnp.min(points, axis=0) + jnp.max(points, axis=0))
    turned = _turn(rotation, points - centre[None, :])
    low, high = jnp.min(turned, axis=0), jnp.max(turned, axis=0)
    shift = jnp.clip(SHIFT_SD_MM * shift, -ROOM_MM - low, ROOM_MM - high)
    return Pose(rotation, centre, shift)


def _turn(rotation: Array, points: Array) -> Array:
    return jnp.matmul(points, rotation.T, precision=jax.lax.Precision.HIGHEST)


def apply_pose(pose: Pose, points: Array) -> Array:
    """`points` [N, 3] from the child's own RAS mm to the world's."""
    return _turn(pose.rotation, points - pose.centre[None, :]) + pose.shift[None, :]


def invert_pose(pose: Pose, r: Array, a: Array, s: Array) -> tuple[Array, Array, Array]:
    """World positions as three arrays of one shape, in the child's own RAS mm."""
    m = pose.rotation
    r, a, s = r - pose.shift[0], a - pose.shift[1], s - pose.shift[2]
    return (
        m[0, 0] * r + m[1, 0] * a + m[2, 0] * s + pose.centre[0],
        m[0, 1] * r + m[1, 1] * a + m[2, 1] * s + pose.centre[1],
        m[0, 2] * r + m[1, 2] * a + m[2, 2] * s + pose.centre[2],
    )


def draw_scene(key: Array, age_weeks: Array) -> Scene:
    """A child, how it lies, and how it is looked at."""
    face_key, pose_key, probe_key, image_key = jax.random.split(key, 4)
    face = anatomy.draw_face(face_key, age_weeks)
    points = anatomy.to_ras(anatomy.place_landmarks(face))  # [19, 3]
    pose = draw_pose(pose_key, points)
    probe = ultrasound.draw_probe(probe_key)
    landmarks = apply_pose(pose, points)
    visible = ultrasound.find_visible(probe, landmarks)
    return Scene(face, pose, probe, landmarks, visible, image_key)


def render_scene(scene: Scene, *, side: int, spacing_mm: float) -> Array:
    """The scene's volume [side, side, side] in [0, 1], axes running Right, Anterior, Superior."""
    ticks = (jnp.arange(side) - 0.5 * (side - 1)) * spacing_mm
    r, a, s = (
        jnp.broadcast_to(ticks.reshape(shape), (side, side, side))
        for shape in ((side, 1, 1), (1, side, 1), (1, 1, side))
    )

    def measure_slab(_, at):
        x, z, y = invert_pose(scene.pose, *at)  # RAS is (x, z, y) of the template
        return None, anatomy.measure_tissue(scene.face, x, y, z)

    # A loop over d, so that XLA stores the anatomy and does not work it out anew at each use.
    _, tissue = jax.lax.scan(measure_slab, None, (r, a, s))
    return ultrasound.render_volume(
        scene.image_key, tissue, scene.probe, r, a, s, spacing_mm=spacing_mm
    )


def simulate_case(key: Array, age_weeks: Array, *, side: int, spacing_mm: float) -> PhantomCase:
    """One case of `side`³ voxels of `spacing_mm`; `side` is static. Pure: vmap it, jit it."""
    scene = draw_scene(key, age_weeks)
    volume = render_scene(scene, side=side, spacing_mm=spacing_mm)
    return PhantomCase(volume, scene.landmarks, scene.visible)
