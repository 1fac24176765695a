"""A cohort of phantoms: ages as in the study, two hospitals, a pose left over from alignment."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fetal_jax.phantom import anatomy, annotation, surroundings, ultrasound

# Completed weeks and number of volumes of the study.
AGE_COUNTS = {
    20: 82, 24: 6, 25: 45, 26: 195, 27: 154, 28: 110, 29: 55,
    30: 34, 31: 16, 32: 4, 33: 2, 35: 16, 36: 4, 38: 2,
}  # fmt: skip
ROTATION_SD_DEG = 6.0
SHIFT_SD_MM = 4.0
CUT_SD = 2.5
ROOM_MM = 41.0  # every landmark is kept this near to the volume's centre, on each axis
EDGE_MM = 42.5  # and every annotation this near
SECOND_SITE_SHARE = 0.25  # of the subjects: the external test set
REPEAT_SHARE = 0.15  # of the cases: another scan of the subject before it
ASIDE_SHARE = 0.16  # of the scans miss a side of the face
FIELD_MM = 100.0  # what a volume shows, along each axis, before a site's own share
BEAMS = (64, 128, 256)  # planes, lines, samples


class PhantomCase(NamedTuple):
    """One simulated examination. The world's origin is the centre of the volume."""

    volume: Array  # [D, H, W] in [0, 1], axes running Right, Anterior, Superior
    landmarks: Array  # [19, 3] RAS+ mm, as annotated: true where visible, else completed
    truth: Array  # [20, 3] RAS+ mm, in anatomy.POINTS' order
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
    limb: surroundings.Limb
    womb: surroundings.Womb
    probe: ultrasound.Probe
    site: ultrasound.Site
    own: Array  # [20, 3] the points in the child's own (x, y, z) mm
    truth: Array  # [20, 3] RAS+ mm
    landmarks: Array  # [19, 3] RAS+ mm, as annotated
    visible: Array  # [19] bool
    reference_db: Array  # [] lost on the way to the best-seen landmark, after gain compensation
    image_key: Array


class Plan(NamedTuple):
    """Who is examined where, an entry a case that does not depend on how many follow."""

    subject: Array  # [n] int, counted from 0
    age_weeks: Array  # [n]
    site: Array  # [n] int, 0 or 1


def plan_cohort(key: Array, n: int) -> Plan:
    """Subjects, ages and sites of `n` cases; a subject's scans follow each other."""
    age_key, site_key, repeat_key = jax.random.split(key, 3)
    weeks = jnp.array(list(AGE_COUNTS), jnp.float32)
    share = jnp.array(list(AGE_COUNTS.values()), jnp.float32)
    share = share / jnp.sum(share)

    def draw(i):
        age = jax.random.choice(jax.random.fold_in(age_key, i), weeks, p=share)
        site = jax.random.uniform(jax.random.fold_in(site_key, i)) < SECOND_SITE_SHARE
        again = jax.random.uniform(jax.random.fold_in(repeat_key, i)) < REPEAT_SHARE
        return age, site.astype(jnp.int32), again & (i > 0)

    age, site, again = jax.vmap(draw)(jnp.arange(n))
    first = jax.lax.cummax(jnp.where(again, 0, jnp.arange(n)))  # the subject's first case
    return Plan(jnp.cumsum(~again) - 1, age[first], site[first])


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


def draw_scene(
    subject_key: Array,
    key: Array,
    age_weeks: Array,
    site: Array,
    *,
    kind: Array | None = None,
    aside: Array | None = None,
) -> Scene:
    """A child, how it lies, what is in the way, and how it is looked at.

    Args:
      subject_key: makes the child; the same for all its scans.
      key: makes this scan.
      site: index of ultrasound.SITES.
      kind: index of surroundings.KINDS, what lies in front; drawn by default.
      aside: bool, whether the probe misses half of the face; drawn by default.
    """
    keys = jax.random.split(key, 7)
    face = anatomy.draw_face(subject_key, age_weeks)
    own = anatomy.place_landmarks(face)  # [20, 3]
    pose = draw_pose(keys[0], anatomy.to_ras(own))
    truth = apply_pose(pose, anatomy.to_ras(own))
    size = face.scale[1]
    drawn = jax.random.choice(keys[1], len(surroundings.KINDS), p=jnp.array(surroundings.SHARES))
    missing = jax.random.uniform(keys[2]) < ASIDE_SHARE
    limb = surroundings.draw_limb(keys[3], own, size, drawn if kind is None else kind)
    machine = ultrasound.select_site(site)
    probe = ultrasound.draw_probe(keys[4], machine, aside=missing if aside is None else aside)
    _, _, reach = ultrasound.world_to_beam(probe, *truth.T)
    womb = surroundings.draw_womb(keys[5], jnp.min(reach), size)
    scene = Scene(
        face, pose, limb, womb, probe, machine, own, truth, truth[:19],
        jnp.ones(19, bool), jnp.zeros(()), keys[6],
    )  # fmt: skip
    visible, reference_db = find_visible(scene)
    completed = annotation.complete_landmarks(jax.random.fold_in(keys[6], 1), own[:19], visible)
    # a guess too is made within the volume
    landmarks = jnp.clip(apply_pose(pose, anatomy.to_ras(completed)), -EDGE_MM, EDGE_MM)
    landmarks = jnp.where(visible[:, None], truth[:19], landmarks)
    return scene._replace(landmarks=landmarks, visible=visible, reference_db=reference_db)


def measure_media(
    scene: Scene, phi: Array, theta: Array, reach: Array, *, moved: bool
) -> ultrasound.Media:
    """Signed distances at beam coordinates that broadcast; `moved`: by the child's own motion."""
    by = ultrasound.move_child(scene.probe, phi) if moved else (0.0, 0.0, 0.0)
    phi, theta, reach = jnp.broadcast_arrays(phi, theta, reach)
    world = ultrasound.beam_to_world(scene.probe, phi, theta, reach)
    r, a, s = (p - shift for p, shift in zip(world, by, strict=True))
    x, z, y = invert_pose(scene.pose, r, a, s)  # RAS is (x, z, y) of the template
    tissue = anatomy.measure_tissue(scene.face, x, y, z)
    limb, core = surroundings.measure_limb(scene.limb, x, y, z)
    return ultrasound.Media(
        *tissue,
        limb,
        core,
        surroundings.measure_near_wall(scene.womb, reach, theta, phi),
        surroundings.measure_far_wall(scene.womb, x, y, z),
    )


def has_bone(scene: Scene) -> Array:
    return scene.limb.kind != surroundings.KINDS.index("cord")


def find_visible(scene: Scene) -> tuple[Array, Array]:
    """Which landmarks [19] the sound reaches, and what it loses on its way to the best-seen one.

    Invisible is one outside the fan, one whose ray has lost HIDDEN_DB more than the best-seen
    one's, and one that something touches.
    """
    phi, theta, reach = ultrasound.world_to_beam(scene.probe, *scene.truth[:19].T)
    inside = ultrasound.in_fan(scene.probe, phi, theta, reach)
    near = scene.probe.reach[0]
    # The ray ends just before the skin; its last sample is the landmark itself.
    length = jnp.maximum(reach - 0.8 - near, 1.0)
    along = near + length[:, None] * jnp.linspace(0.0, 1.0, 256)[None]
    along = jnp.concatenate([along, reach[:, None]], axis=1)
    # mapped, so that XLA stores the anatomy and does not work it out anew for each use
    media = jax.lax.map(lambda ray: measure_media(scene, *ray, moved=False), (phi, theta, along))
    step_mm = (length / 255.0)[:, None]
    loss_db = ultrasound.lose_sound(media, step_mm, scene.site, has_bone(scene))[:, -2]
    shown_db = loss_db - ultrasound.restore_gain(reach, near, scene.site)
    least_db, reference_db = (
        jnp.min(jnp.where(inside | ~jnp.any(inside), db, jnp.inf)) for db in (loss_db, shown_db)
    )
    touched = jnp.minimum(media.limb, media.near_wall)[:, -1] < ultrasound.TOUCH_MM
    heard = loss_db - least_db < ultrasound.HIDDEN_DB
    return inside & heard & ~touched, reference_db


def image_scene(scene: Scene, *, beams: tuple[int, int, int] = BEAMS) -> Array:
    """The scene's log-compressed picture on the beam grid [S, L, R], in [0, 1]."""
    texture_key, noise_key = jax.random.split(scene.image_key)
    phi, theta, reach = ultrasound.beam_grid(scene.probe, beams)
    step_mm = reach[1] - reach[0]
    bone = has_bone(scene)
    gain_db = ultrasound.restore_gain(reach, scene.probe.reach[0], scene.site)

    def measure_plane(_, at):
        return None, measure_media(scene, at, theta[:, None], reach[None, :], moved=True)

    def image_plane(_, plane):
        media, uneven = plane
        loss_db = ultrasound.lose_sound(media, step_mm, scene.site, bone) - gain_db[None]
        left = 10.0 ** (-(loss_db - scene.reference_db) / 20.0)
        scatter = ultrasound.scatter_sound(media, uneven, bone) * left
        return None, (scatter, ultrasound.echo_sound(media, step_mm, bone) * left)

    # Loops over the planes, so that XLA stores the anatomy and does not work it out anew.
    _, media = jax.lax.scan(measure_plane, None, phi)
    planes = (media, ultrasound.draw_texture(texture_key, beams))
    _, (scatter, echo) = jax.lax.scan(image_plane, None, planes)
    spread = ultrasound.point_spread(scene.probe, scene.site, beams)
    envelope = ultrasound.detect_envelope(noise_key, scatter, echo, spread)
    return ultrasound.compress(envelope, scene.site.dynamic_range_db, scene.site.gain_db)


def render_scene(
    scene: Scene,
    spacing_mm: Array,
    origin: Array,
    *,
    shape: tuple[int, int, int],
    beams: tuple[int, int, int] = BEAMS,
) -> Array:
    """The scene's volume [D, H, W] in [0, 1], axes running Right, Anterior, Superior.

    Args:
      spacing_mm: [3] along R, A, S; `origin` [3] RAS mm, the first voxel's centre.
      shape: static.
    """
    return ultrasound.convert_scan(
        image_scene(scene, beams=beams), scene.probe, spacing_mm, origin, shape
    )


def simulate_case(
    key: Array,
    age_weeks: Array,
    site: Array,
    *,
    side: int,
    spacing_mm: float,
    beams: tuple[int, int, int] = BEAMS,
) -> PhantomCase:
    """One case of `side`³ voxels of `spacing_mm`; `side` is static. Pure: vmap it, jit it."""
    subject_key, key = jax.random.split(key)
    scene = draw_scene(subject_key, key, age_weeks, site)
    spacing = jnp.full(3, spacing_mm)
    volume = render_scene(
        scene, spacing, -0.5 * (side - 1) * spacing, shape=(side,) * 3, beams=beams
    )
    return PhantomCase(volume, scene.landmarks, scene.truth, scene.visible)
