"""A cohort of phantoms: ages as in the study, two hospitals, the residual pose after alignment."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fetal_jax.landmarks import LABELS
from fetal_jax.phantom import anatomy, annotation, surroundings, ultrasound
from fetal_jax.phantom.machine import Machine, sample_machine, select_site
from fetal_jax.phantom.probe import (
    Probe,
    beam_grid,
    beam_to_world,
    child_motion,
    in_fan,
    sample_probe,
    world_to_beam,
)

# Completed weeks and number of volumes of the study.
AGE_COUNTS = {
    20: 82, 24: 6, 25: 45, 26: 195, 27: 154, 28: 110, 29: 55,
    30: 34, 31: 16, 32: 4, 33: 2, 35: 16, 36: 4, 38: 2,
}  # fmt: skip
# Of the second site, which sees its children later.
SECOND_AGE_COUNTS = {
    20: 10, 24: 10, 26: 30, 28: 60, 29: 50, 30: 70, 31: 60, 32: 70, 33: 50, 34: 40, 35: 30, 36: 25,
    37: 10, 38: 5,
}  # fmt: skip
VERSION = 2  # of the phantom; another one's cases do not belong in the same cohort
CUT_SD = 2.5  # rotations and shifts are truncated there
ROOM_MM = 41.0  # greatest distance of a true landmark from the volume's centre along an axis
EDGE_MM = 42.5  # and of an annotated one
SECOND_SITE_SHARE = 0.25  # of the subjects: the external test set
REPEAT_SHARE = 0.15  # of the cases: another scan of the subject before it
FIELD_MM = 100.0  # field of view along each axis, to be multiplied by Site.field
BEAMS = (64, 128, 256)  # planes, lines, samples


class Hospital(NamedTuple):
    """What differs between hospitals beside the machine: alignment, occlusion, annotators."""

    rotation_sd_deg: Array  # of the residual pose about each axis
    shift_sd_mm: Array  # and along it
    kind_shares: Array  # [4] how often each of surroundings.KINDS lies in front of the face
    aside_share: Array  # of the scans: the probe misses a side of the face
    habit_mm: Array  # sd of its annotators along each axis, as of annotation.sample_reading
    slip_mm: Array


HOSPITALS = (
    Hospital(6.0, 4.0, (0.52, 0.26, 0.09, 0.13), 0.18, 0.4, 0.5),
    Hospital(10.0, 8.0, (0.44, 0.30, 0.11, 0.15), 0.22, 0.65, 0.6),
)


def select_hospital(site: Array | int) -> Hospital:
    """The hospital of site 0 or 1, as arrays."""
    both = [Hospital(*(jnp.array(value) for value in hospital)) for hospital in HOSPITALS]
    return jax.tree.map(lambda *values: jnp.stack(values)[site], *both)


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
    probe: Probe
    machine: Machine
    site: Array  # [] int, index of machine.SITES
    age_weeks: Array  # []
    own: Array  # [P, 3] the points in the child's own (x, y, z) mm
    truth: Array  # [P, 3] RAS+ mm
    landmarks: Array  # [L, 3] RAS+ mm, as annotated: read where visible, else completed
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

    def sample_age(key: Array, counts: dict[int, int]) -> Array:
        share = jnp.array(list(counts.values()), jnp.float32)
        return jax.random.choice(
            key, jnp.array(list(counts), jnp.float32), p=share / jnp.sum(share)
        )

    def sample_case(i: Array) -> tuple[Array, Array, Array]:
        site = jax.random.uniform(jax.random.fold_in(site_key, i)) < SECOND_SITE_SHARE
        key = jax.random.fold_in(age_key, i)
        first, second = (sample_age(key, counts) for counts in (AGE_COUNTS, SECOND_AGE_COUNTS))
        age = jnp.where(site, second, first)
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


def sample_pose(key: Array, points: Array, hospital: Hospital) -> Pose:
    """Sample the residual pose after alignment, about each axis and along it.

    Args:
      key: PRNG key.
      points: [P, 3] the face's own RAS mm; it turns round the middle of their bounding box and
        stays within ROOM_MM.
      hospital: gives the sd of both.
    """
    turn, shift = jax.random.truncated_normal(key, -CUT_SD, CUT_SD, (2, 3))
    rotation = rotate_about_axes(jnp.deg2rad(hospital.rotation_sd_deg * turn))
    centre = 0.5 * (jnp.min(points, axis=0) + jnp.max(points, axis=0))
    turned = _rotate(rotation, points - centre[None, :])
    low, high = jnp.min(turned, axis=0), jnp.max(turned, axis=0)
    shift = jnp.clip(hospital.shift_sd_mm * shift, -ROOM_MM - low, ROOM_MM - high)
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
    habit_key: Array | None = None,
    face_kind: Array | int = 0,
    kind: Array | None = None,
    aside: Array | bool | None = None,
) -> Scene:
    """Sample a child, its pose, what lies in front of it, and the probe.

    Args:
      subject_key: PRNG key of the child, the same for all its scans.
      key: PRNG key of this scan.
      age_weeks: [] gestational age.
      site: [] int, index of machine.SITES.
      habit_key: PRNG key of the cohort's annotators; key 0 by default.
      face_kind: [] int, index of anatomy.FACES.
      kind: [] int, index of surroundings.KINDS, what lies in front; sampled by default.
      aside: [] bool, whether the probe misses half of the face; sampled by default.
    """
    keys = jax.random.split(key, 8)
    site, age_weeks = jnp.asarray(site, jnp.int32), jnp.asarray(age_weeks, jnp.float32)
    hospital = select_hospital(site)
    face = anatomy.sample_face(subject_key, age_weeks, face_kind)
    own = anatomy.place_landmarks(face)  # [P, 3]
    pose = sample_pose(keys[0], anatomy.to_ras(own), hospital)
    truth = apply_pose(pose, anatomy.to_ras(own))
    if kind is None:
        kind = jax.random.choice(keys[1], len(surroundings.KINDS), p=hospital.kind_shares)
    if aside is None:
        aside = jax.random.uniform(keys[2]) < hospital.aside_share
    limb = surroundings.sample_limb(keys[3], own, face.scale[1], kind)
    machine = sample_machine(keys[7], select_site(site))
    probe = sample_probe(keys[4], machine, aside=aside)
    _, _, reach = world_to_beam(probe, *truth.T)
    ahead_mm = jnp.linalg.norm(probe.apex)
    womb = surroundings.sample_womb(keys[5], ahead_mm, reach, truth)
    count = len(LABELS)
    scene = Scene(
        face=face,
        pose=pose,
        limb=limb,
        womb=womb,
        probe=probe,
        machine=machine,
        site=site,
        age_weeks=age_weeks,
        own=own,
        truth=truth,
        landmarks=truth[:count],
        visible=jnp.ones(count, bool),
        reference_db=jnp.zeros(()),
        image_key=keys[6],
    )
    visible, reference_db = find_visible(scene)
    scene = scene._replace(visible=visible, reference_db=reference_db)
    habit_key = jax.random.key(0) if habit_key is None else habit_key
    reading_key = jax.random.fold_in(keys[6], 1)
    return scene._replace(landmarks=annotate_scene(habit_key, reading_key, scene, 0))


def annotate_scene(habit_key: Array, key: Array, scene: Scene, annotator: Array | int) -> Array:
    """Sample one annotator's reading of a scene: [L, 3] RAS+ mm.

    Args:
      habit_key: PRNG key of the cohort's annotators.
      key: PRNG key of the scene's readings.
      annotator: [] int; the number 0 of a site reads all of its cases. Sites share no annotators.
    """
    hospital = select_hospital(scene.site)
    habit_key = jax.random.fold_in(jax.random.fold_in(habit_key, scene.site), annotator)
    reading = annotation.sample_reading(
        habit_key,
        jax.random.fold_in(key, annotator),
        annotation.expect_shapes(scene.age_weeks),
        scene.own[: len(LABELS)],
        scene.visible,
        habit_mm=hospital.habit_mm,
        slip_mm=hospital.slip_mm,
    )
    # what is written down lies within the volume
    return jnp.clip(apply_pose(scene.pose, anatomy.to_ras(reading)), -EDGE_MM, EDGE_MM)


def media_distances(
    scene: Scene, phi: Array, theta: Array, reach: Array, *, moved: bool
) -> ultrasound.Media:
    """Signed distances in mm at beam coordinates that broadcast.

    Args:
      phi, theta: radians; `reach`: range in mm.
      moved: static, whether the child moves during the sweep.
    """
    by = child_motion(scene.probe, phi) if moved else (0.0, 0.0, 0.0)
    phi, theta, reach = jnp.broadcast_arrays(phi, theta, reach)
    world = beam_to_world(scene.probe, phi, theta, reach)
    r, a, s = (p - shift for p, shift in zip(world, by, strict=True))
    x, z, y = invert_pose(scene.pose, r, a, s)  # RAS is (x, z, y) of the template
    tissue = anatomy.tissue_distances(scene.face, x, y, z)
    limb, core = surroundings.limb_distances(scene.limb, x, y, z)
    return ultrasound.Media(
        *tissue,
        limb,
        core,
        surroundings.near_wall_distance(scene.womb, reach, theta, phi),
        surroundings.far_wall_distance(scene.womb, *world),
    )


def has_bone(scene: Scene) -> Array:
    """[] bool: whether the limb's core is bone and not a vessel."""
    return scene.limb.kind != surroundings.KINDS.index("cord")


def find_visible(scene: Scene) -> tuple[Array, Array]:
    """Which landmarks [L] can be seen, and the dB [] lost on the way to the best-seen one.

    Invisible is one outside the fan, one whose ray has lost HIDDEN_DB more than the best-seen
    one's, and one that something else touches.
    """
    phi, theta, reach = world_to_beam(scene.probe, *scene.truth[: len(LABELS)].T)
    inside = in_fan(scene.probe, phi, theta, reach)
    near = scene.probe.reach[0]
    # The ray ends just before the skin; its last sample is the landmark itself.
    length = jnp.maximum(reach - 0.8 - near, 1.0)
    along = near + length[:, None] * jnp.linspace(0.0, 1.0, 256)[None]
    along = jnp.concatenate([along, reach[:, None]], axis=1)
    # a loop, so that XLA stores the distances and does not compute them anew for each use
    media = jax.lax.map(lambda ray: media_distances(scene, *ray, moved=False), (phi, theta, along))
    step_mm = (length / 255.0)[:, None]
    loss_db = ultrasound.attenuation_db(media, step_mm, scene.machine, has_bone(scene))[:, -2]
    loss_db = loss_db + ultrasound.contact_db(scene.machine, phi, theta)
    shown_db = loss_db - ultrasound.time_gain_db(reach, near, scene.machine)
    least_db, reference_db = (
        jnp.min(jnp.where(inside | ~jnp.any(inside), db, jnp.inf)) for db in (loss_db, shown_db)
    )
    touched = jnp.minimum(media.limb, media.near_wall)[:, -1] < ultrasound.TOUCH_MM
    heard = loss_db - least_db < ultrasound.HIDDEN_DB
    return inside & heard & ~touched, reference_db


def insonify_scene(scene: Scene, *, beams: tuple[int, int, int] = BEAMS) -> Array:
    """Simulate the field that the probe receives, [S, L, R, 5] as of ultrasound.receive_field.

    Args:
      beams: (S, L, R), static.
    """
    machine = scene.machine
    texture_key, noise_key = jax.random.split(scene.image_key)
    phi, theta, reach = beam_grid(scene.probe, beams)
    step_mm, near_mm = reach[1] - reach[0], scene.probe.reach[0]
    bone = has_bone(scene)
    gain_db = ultrasound.time_gain_db(reach, near_mm, machine) + scene.reference_db

    def plane_distances(_, at):
        return None, media_distances(scene, at, theta[:, None], reach[None, :], moved=True)

    def sound_plane(_, plane):
        at, media, uneven = plane
        contact_db = ultrasound.contact_db(machine, jnp.full_like(theta, at), theta)
        gain = 10.0 ** ((gain_db[None] - contact_db[:, None]) / 20.0)
        passed = 10.0 ** (-ultrasound.attenuation_db(media, step_mm, machine, bone) / 20.0)
        haze, repeats = ultrasound.clutter_amplitude(media.near_wall, reach, near_mm, machine)
        scatter = ultrasound.scatter_amplitude(media, uneven, bone) + repeats
        scatter = gain * (passed * scatter + haze[None])
        return None, (scatter, gain * passed * ultrasound.echo_amplitude(media, step_mm, bone))

    # Loops over the planes, so that XLA stores the distances and does not compute them anew.
    _, media = jax.lax.scan(plane_distances, None, phi)
    planes = (phi, media, ultrasound.sample_texture(texture_key, beams))
    _, (scatter, echo) = jax.lax.scan(sound_plane, None, planes)
    spread = ultrasound.point_spread(scene.probe, machine, beams, reach)
    return ultrasound.receive_field(noise_key, scatter, echo, spread)


def convert_scene(
    field: Array,
    scene: Scene,
    spacing_mm: Array,
    origin_mm: Array,
    *,
    shape: tuple[int, int, int],
) -> Array:
    """Make the volume [D, H, W] in [0, 1] of what the probe received; 0 is outside the fan.

    Args:
      field: [S, L, R, 5], as of `insonify_scene`.
      spacing_mm: [3] along R, A, S.
      origin_mm: [3] RAS+ mm of the first voxel's centre.
      shape: (D, H, W), static.
    """
    machine = scene.machine
    envelope = ultrasound.convert_scan(field, scene.probe, machine, spacing_mm, origin_mm, shape)
    picture = ultrasound.compress(envelope, machine.dynamic_range_db, machine.gain_db)
    filtered = ultrasound.reduce_speckle(picture, machine, spacing_mm)
    return jnp.where(envelope > 0.0, filtered, 0.0)


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
    field = insonify_scene(scene, beams=beams)
    return convert_scene(field, scene, spacing_mm, origin_mm, shape=shape)
