"""A cohort of phantoms: ages as in the study, two hospitals, the residual pose after alignment."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fetal_jax.landmarks import LABELS
from fetal_jax.phantom import anatomy, annotation, surroundings, ultrasound

# Completed weeks and number of volumes of the study.
AGE_COUNTS = {
    20: 82, 24: 6, 25: 45, 26: 195, 27: 154, 28: 110, 29: 55,
    30: 34, 31: 16, 32: 4, 33: 2, 35: 16, 36: 4, 38: 2,
}  # fmt: skip
ROTATION_SD_DEG = 6.0
SHIFT_SD_MM = 4.0
CUT_SD = 2.5  # both are truncated there
ROOM_MM = 41.0  # greatest distance of a true landmark from the volume's centre along an axis
EDGE_MM = 42.5  # and of an annotated one
SECOND_SITE_SHARE = 0.25  # of the subjects: the external test set
REPEAT_SHARE = 0.15  # of the cases: another scan of the subject before it
ASIDE_SHARE = 0.16  # of the scans: the probe misses a side of the face
FIELD_MM = 100.0  # field of view along each axis, to be multiplied by Site.field
BEAMS = (64, 128, 256)  # planes, lines, samples


class Pose(NamedTuple):
    """From the child's own RAS mm to the world's: rotation @ (p - centre) + shift."""

    rotation: Array  # [3, 3]
    centre: Array  # [3] mm
    shift: Array  # [3] mm


class Scene(NamedTuple):
    """All of a case but its volume: a few hundred numbers, cheap to sample.

    The world's origin is the centre of the volume. P points are in anatomy.POINTS' order, L
    landmarks in landmarks.LABELS'.
    """

    face: anatomy.Face
    pose: Pose
    limb: surroundings.Limb
    womb: surroundings.Womb
    probe: ultrasound.Probe
    site: ultrasound.Site
    own: Array  # [P, 3] the points in the child's own (x, y, z) mm
    truth: Array  # [P, 3] RAS+ mm
    landmarks: Array  # [L, 3] RAS+ mm, as annotated: true where visible, else completed
    visible: Array  # [L] bool
    reference_db: Array  # [] lost on the way to the best-seen landmark, after gain compensation
    image_key: Array


class Plan(NamedTuple):
    """Who is examined where: one entry a case, independent of how many cases follow."""

    subject: Array  # [n] int, counted from 0
    age_weeks: Array  # [n]
    site: Array  # [n] int, 0 or 1


def plan_cohort(key: Array, n: int) -> Plan:
    """Sample subjects, ages and sites of `n` cases; a subject's scans follow each other."""
    age_key, site_key, repeat_key = jax.random.split(key, 3)
    weeks = jnp.array(list(AGE_COUNTS), jnp.float32)
    share = jnp.array(list(AGE_COUNTS.values()), jnp.float32)
    share = share / jnp.sum(share)

    def sample_case(i: Array) -> tuple[Array, Array, Array]:
        age = jax.random.choice(jax.random.fold_in(age_key, i), weeks, p=share)
        site = jax.random.uniform(jax.random.fold_in(site_key, i)) < SECOND_SITE_SHARE
        again = jax.random.uniform(jax.random.fold_in(repeat_key, i)) < REPEAT_SHARE
        return age, site.astype(jnp.int32), again & (i > 0)

    age, site, again = jax.vmap(sample_case)(jnp.arange(n))
    first = jax.lax.cummax(jnp.where(again, 0, jnp.arange(n)))  # the subject's first case
    return Plan(jnp.cumsum(~again) - 1, age[first], site[first])


def rotate_about_axes(angles: Array) -> Array:
    """Rotation matrix [3, 3] by `angles` [3] in radians about R, then A, then S."""
    (ca, cb, cc), (sa, sb, sc) = jnp.cos(angles), jnp.sin(angles)
    return jnp.array([
        [cb * cc, sa * sb * cc - ca * sc, ca * sb * cc + sa * sc],
        [cb * sc, sa * sb * sc + ca * cc, ca * sb * sc - sa * cc],
        [-sb, sa * cb, ca * cb],
    ])  # fmt: skip


def sample_pose(key: Array, points: Array) -> Pose:
    """Sample the residual pose after alignment: sd 6° about each axis, 4 mm along it.

    Args:
      key: PRNG key.
      points: [P, 3] the face's own RAS mm; it turns round the middle of their bounding box and
        stays within ROOM_MM.
    """
    turn, shift = jax.random.truncated_normal(key, -CUT_SD, CUT_SD, (2, 3))
    rotation = rotate_about_axes(jnp.deg2rad(ROTATION_SD_DEG * turn))
    centre = 0.5 * (jnp.min(points, axis=0) + jnp.max(points, axis=0))
    turned = _rotate(rotation, points - centre[None, :])
    low, high = jnp.min(turned, axis=0), jnp.max(turned, axis=0)
    shift = jnp.clip(SHIFT_SD_MM * shift, -ROOM_MM - low, ROOM_MM - high)
    return Pose(rotation, centre, shift)


def _rotate(rotation: Array, points: Array) -> Array:
    return jnp.matmul(points, rotation.T, precision=jax.lax.Precision.HIGHEST)


def apply_pose(pose: Pose, points: Array) -> Array:
    """Map points [N, 3] from the child's own RAS mm to the world's."""
    return _rotate(pose.rotation, points - pose.centre[None, :]) + pose.shift[None, :]


def invert_pose(pose: Pose, r: Array, a: Array, s: Array) -> tuple[Array, Array, Array]:
    """Map world RAS mm, three arrays of one shape, to the child's own: inverse of `apply_pose`."""
    m = pose.rotation
    r, a, s = r - pose.shift[0], a - pose.shift[1], s - pose.shift[2]
    return (
        m[0, 0] * r + m[1, 0] * a + m[2, 0] * s + pose.centre[0],
        m[0, 1] * r + m[1, 1] * a + m[2, 1] * s + pose.centre[1],
        m[0, 2] * r + m[1, 2] * a + m[2, 2] * s + pose.centre[2],
    )


def sample_scene(
    subject_key: Array,
    key: Array,
    age_weeks: Array | float,
    site: Array | int,
    *,
    kind: Array | None = None,
    aside: Array | bool | None = None,
) -> Scene:
    """Sample a child, its pose, what lies in front of it, and the probe.

    Args:
      subject_key: PRNG key of the child, the same for all its scans.
      key: PRNG key of this scan.
      age_weeks: [] gestational age.
      site: [] int, index of ultrasound.SITES.
      kind: [] int, index of surroundings.KINDS, what lies in front; sampled by default.
      aside: [] bool, whether the probe misses half of the face; sampled by default.
    """
    keys = jax.random.split(key, 7)
    face = anatomy.sample_face(subject_key, age_weeks)
    own = anatomy.place_landmarks(face)  # [P, 3]
    pose = sample_pose(keys[0], anatomy.to_ras(own))
    truth = apply_pose(pose, anatomy.to_ras(own))
    size = face.scale[1]
    if kind is None:
        shares = jnp.array(surroundings.SHARES)
        kind = jax.random.choice(keys[1], len(surroundings.KINDS), p=shares)
    if aside is None:
        aside = jax.random.uniform(keys[2]) < ASIDE_SHARE
    limb = surroundings.sample_limb(keys[3], own, size, kind)
    machine = ultrasound.select_site(site)
    probe = ultrasound.sample_probe(keys[4], machine, aside=aside)
    _, _, reach = ultrasound.world_to_beam(probe, *truth.T)
    womb = surroundings.sample_womb(keys[5], jnp.min(reach), size)
    count = len(LABELS)
    scene = Scene(
        face=face,
        pose=pose,
        limb=limb,
        womb=womb,
        probe=probe,
        site=machine,
        own=own,
        truth=truth,
        landmarks=truth[:count],
        visible=jnp.ones(count, bool),
        reference_db=jnp.zeros(()),
        image_key=keys[6],
    )
    visible, reference_db = find_visible(scene)
    completed = annotation.complete_landmarks(jax.random.fold_in(keys[6], 1), own[:count], visible)
    # a completed landmark too lies within the volume
    landmarks = jnp.clip(apply_pose(pose, anatomy.to_ras(completed)), -EDGE_MM, EDGE_MM)
    landmarks = jnp.where(visible[:, None], truth[:count], landmarks)
    return scene._replace(landmarks=landmarks, visible=visible, reference_db=reference_db)


def media_distances(
    scene: Scene, phi: Array, theta: Array, reach: Array, *, moved: bool
) -> ultrasound.Media:
    """Signed distances in mm at beam coordinates that broadcast.

    Args:
      phi, theta: radians; `reach`: range in mm.
      moved: static, whether the child moves during the sweep.
    """
    by = ultrasound.child_motion(scene.probe, phi) if moved else (0.0, 0.0, 0.0)
    phi, theta, reach = jnp.broadcast_arrays(phi, theta, reach)
    world = ultrasound.beam_to_world(scene.probe, phi, theta, reach)
    r, a, s = (p - shift for p, shift in zip(world, by, strict=True))
    x, z, y = invert_pose(scene.pose, r, a, s)  # RAS is (x, z, y) of the template
    tissue = anatomy.tissue_distances(scene.face, x, y, z)
    limb, core = surroundings.limb_distances(scene.limb, x, y, z)
    return ultrasound.Media(
        *tissue,
        limb,
        core,
        surroundings.near_wall_distance(scene.womb, reach, theta, phi),
        surroundings.far_wall_distance(scene.womb, x, y, z),
    )


def has_bone(scene: Scene) -> Array:
    """[] bool: whether the limb's core is bone and not a vessel."""
    return scene.limb.kind != surroundings.KINDS.index("cord")


def find_visible(scene: Scene) -> tuple[Array, Array]:
    """Which landmarks [L] can be seen, and the dB [] lost on the way to the best-seen one.

    Invisible is one outside the fan, one whose ray has lost HIDDEN_DB more than the best-seen
    one's, and one that something else touches.
    """
    phi, theta, reach = ultrasound.world_to_beam(scene.probe, *scene.truth[: len(LABELS)].T)
    inside = ultrasound.in_fan(scene.probe, phi, theta, reach)
    near = scene.probe.reach[0]
    # The ray ends just before the skin; its last sample is the landmark itself.
    length = jnp.maximum(reach - 0.8 - near, 1.0)
    along = near + length[:, None] * jnp.linspace(0.0, 1.0, 256)[None]
    along = jnp.concatenate([along, reach[:, None]], axis=1)
    # a loop, so that XLA stores the distances and does not compute them anew for each use
    media = jax.lax.map(lambda ray: media_distances(scene, *ray, moved=False), (phi, theta, along))
    step_mm = (length / 255.0)[:, None]
    loss_db = ultrasound.attenuation_db(media, step_mm, scene.site, has_bone(scene))[:, -2]
    shown_db = loss_db - ultrasound.time_gain_db(reach, near, scene.site)
    least_db, reference_db = (
        jnp.min(jnp.where(inside | ~jnp.any(inside), db, jnp.inf)) for db in (loss_db, shown_db)
    )
    touched = jnp.minimum(media.limb, media.near_wall)[:, -1] < ultrasound.TOUCH_MM
    heard = loss_db - least_db < ultrasound.HIDDEN_DB
    return inside & heard & ~touched, reference_db


def image_scene(scene: Scene, *, beams: tuple[int, int, int] = BEAMS) -> Array:
    """Simulate the scene's log-compressed image on the beam grid [S, L, R], in [0, 1].

    Args:
      beams: (S, L, R), static.
    """
    texture_key, noise_key = jax.random.split(scene.image_key)
    phi, theta, reach = ultrasound.beam_grid(scene.probe, beams)
    step_mm = reach[1] - reach[0]
    bone = has_bone(scene)
    gain_db = ultrasound.time_gain_db(reach, scene.probe.reach[0], scene.site)

    def plane_distances(_, at):
        return None, media_distances(scene, at, theta[:, None], reach[None, :], moved=True)

    def image_plane(_, plane):
        media, uneven = plane
        loss_db = ultrasound.attenuation_db(media, step_mm, scene.site, bone) - gain_db[None]
        gain = 10.0 ** (-(loss_db - scene.reference_db) / 20.0)
        scatter = ultrasound.scatter_amplitude(media, uneven, bone) * gain
        return None, (scatter, ultrasound.echo_amplitude(media, step_mm, bone) * gain)

    # Loops over the planes, so that XLA stores the distances and does not compute them anew.
    _, media = jax.lax.scan(plane_distances, None, phi)
    planes = (media, ultrasound.sample_texture(texture_key, beams))
    _, (scatter, echo) = jax.lax.scan(image_plane, None, planes)
    spread = ultrasound.point_spread(scene.probe, scene.site, beams)
    envelope = ultrasound.detect_envelope(noise_key, scatter, echo, spread)
    return ultrasound.compress(envelope, scene.site.dynamic_range_db, scene.site.gain_db)


def render_scene(
    scene: Scene,
    spacing_mm: Array,
    origin_mm: Array,
    *,
    shape: tuple[int, int, int],
    beams: tuple[int, int, int] = BEAMS,
) -> Array:
    """Simulate the scene's volume [D, H, W] in [0, 1], axes running Right, Anterior, Superior.

    Pure: `jax.vmap` makes it many volumes.

    Args:
      spacing_mm: [3] along R, A, S.
      origin_mm: [3] RAS+ mm of the first voxel's centre.
      shape: (D, H, W), static.
      beams: of the beam grid, static.
    """
    image = image_scene(scene, beams=beams)
    return ultrasound.convert_scan(image, scene.probe, spacing_mm, origin_mm, shape)
