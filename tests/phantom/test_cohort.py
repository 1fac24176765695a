"""Cases: one key makes one case, poses keep the face in the volume, ages follow the study."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.landmarks import LABELS, MIDLINE, PAIRS
from fetal_jax.phantom import cohort, surroundings, ultrasound
from fetal_jax.phantom.probe import beam_grid, world_to_beam

SIDE, SPACING_MM, BEAMS = 24, 4.0, (16, 32, 64)


insonify_scene = jax.jit(cohort.insonify_scene)  # the program that writes cohorts


@jax.jit
def image_field(field, machine):
    envelope = ultrasound.detect_envelope(field, jnp.ones(field.shape[:-1]), machine.compounding)
    return ultrasound.compress(envelope, machine.dynamic_range_db, machine.gain_db)


def image_scene(scene):
    """The log-compressed picture on the beam grid."""
    return image_field(insonify_scene(scene), scene.machine)


SPACING = jnp.full(3, SPACING_MM)
ORIGIN = -0.5 * (SIDE - 1) * SPACING
convert_scene = jax.jit(partial(cohort.convert_scene, shape=(SIDE,) * 3))


def render(scenes, i):
    """The volume of the scene at i, by programs of which the first is that of `insonify_scene`."""
    scene = jax.tree.map(lambda leaf: leaf[i], scenes)
    return convert_scene(insonify_scene(scene), scene, SPACING, ORIGIN)


def is_aside(probe):
    """Whether the middle ray passes the volume's centre by more than 20 mm."""
    apex, middle = probe.apex, probe.axes[:, 2]
    nearest = apex - np.sum(apex * middle, axis=1, keepdims=True) * middle
    return np.linalg.norm(nearest, axis=1) > 20.0


def test_shapes_and_ranges(sample_scenes):
    batch = sample_scenes(range(8), range(8))
    assert batch.truth.shape == batch.own.shape == (8, 20, 3)
    assert batch.landmarks.shape == (8, 19, 3)
    assert batch.visible.shape == (8, 19) and batch.visible.dtype == bool
    volume = render(batch, 0)
    assert volume.shape == (SIDE, SIDE, SIDE) and volume.dtype == jnp.float32
    assert float(volume.min()) == 0.0 and 0.5 < float(volume.max()) <= 1.0
    one = partial(cohort.render_scene, shape=(SIDE,) * 3, beams=BEAMS)
    volumes = jax.eval_shape(jax.vmap(one, in_axes=(0, None, None)), batch, SPACING, ORIGIN)
    assert volumes.shape == (8, SIDE, SIDE, SIDE) and volumes.dtype == jnp.float32


def test_a_scene_s_types_are_said():
    """None is weak: its arrays enter other programs as those of any scene do."""
    keys = jax.random.split(jax.random.key(0))
    scene = jax.eval_shape(jax.jit(cohort.sample_scene), *keys, 28.0, 1)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(scene))


def test_one_key_one_case_whoever_is_beside_it(sample_scenes):
    """Pure under vmap: a case is the same whatever the other cases and its place among them."""
    first = [0, 1, *range(10, 16)]
    other = [7, 1, *range(20, 26)]
    moved = [1, *range(30, 37)]
    scenes = [sample_scenes(numbers, numbers) for numbers in (first, other, moved)]
    raw = [s._replace(image_key=jax.random.key_data(s.image_key)) for s in scenes]
    for a, b, c in zip(*map(jax.tree.leaves, raw), strict=True):
        np.testing.assert_array_equal(a[1], b[1])
        np.testing.assert_array_equal(a[1], c[0])
    assert float(jnp.abs(scenes[0].landmarks[0] - scenes[1].landmarks[0]).max()) > 1.0
    volume, same = render(scenes[0], 1), render(scenes[1], 1)
    np.testing.assert_array_equal(volume, same)
    assert float(jnp.abs(render(scenes[0], 0) - volume).max()) > 0.2


def test_landmarks_stay_near_the_centre(scenes):
    assert np.abs(scenes.truth).max() <= 46.0  # gnathion included
    assert np.abs(scenes.truth[:, :19]).max() <= 41.0 + 1e-3
    assert np.abs(scenes.landmarks).max() <= 42.5


def test_pose_is_what_alignment_leaves(scenes):
    middle = 0.5 * (scenes.truth.min(axis=1) + scenes.truth.max(axis=1))
    assert np.abs(middle.mean(axis=0)).max() < 1.2
    trace = np.trace(scenes.pose.rotation, axis1=1, axis2=2)
    turn = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    for site, (degrees, shift_mm) in enumerate([(6, 4.0), (10, 8.0)]):
        at = scenes.site == site
        assert scenes.pose.shift[at].std(axis=0) == pytest.approx(shift_mm, rel=0.2)
        # The trace of a product of three turns of 6 degrees: an angle of 6 sqrt(3) degrees rms.
        assert np.sqrt((turn[at] ** 2).mean()) == pytest.approx(degrees * np.sqrt(3), rel=0.15)


def test_visible_landmarks_are_annotated_as_people_do_and_hidden_ones_worse(scenes):
    off = np.linalg.norm(scenes.landmarks - scenes.truth[:, :19], axis=-1)
    visible = [off[(scenes.site == site)[:, None] & scenes.visible] for site in (0, 1)]
    assert 0.8 < visible[0].mean() < visible[1].mean() < 1.6
    assert visible[0].max() < 5.0
    assert 1.5 < off[~scenes.visible].mean() < 5.0


def test_annotators_of_a_site_share_no_habit_with_those_of_the_other(scenes):
    """What an annotator does at a landmark is kept over children, turned back to the child."""
    back = np.einsum("nji,nlj->nli", scenes.pose.rotation, scenes.landmarks - scenes.truth[:, :19])
    off = np.where(scenes.visible[..., None], back, np.nan)
    habits = [np.nanmean(off[scenes.site == site], axis=0).ravel() for site in (0, 1)]
    for habit, hospital in zip(habits, cohort.HOSPITALS, strict=True):
        assert habit.std() == pytest.approx(hospital.habit_mm, rel=0.35)
    assert abs(np.corrcoef(habits)[0, 1]) < 0.35


def find_linearly(columns, points, ridge=3.0):
    """Mean error in mm of a linear fit of points [N, P, 3]: fitted on one half, tried on the other.

    Blocks of ten children, which have all ages at both sites, are dealt to the halves in turn.
    """
    x = np.column_stack([np.reshape(column, (len(points), -1)) for column in columns])
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
    half, errors = np.arange(len(points)) // 10 % 2 == 0, []
    for fit in (half, ~half):
        y = points[fit].reshape(fit.sum(), -1)
        gram = x[fit].T @ x[fit] + ridge * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, x[fit].T @ (y - y.mean(axis=0)))
        found = y.mean(axis=0) + (x[~fit] - x[fit].mean(axis=0)) @ weights
        errors.append(np.linalg.norm(found.reshape(-1, *points.shape[1:]) - points[~fit], axis=-1))
    return np.concatenate(errors).mean()


def test_walls_tell_nothing_of_where_the_face_is(scenes):
    """Knowing the walls does not find the landmarks better than the age alone.

    120 children and a dozen columns: what is fitted by chance costs about 5 %, and such an error
    has a standard error of about 3 %. A sphere in the child's own frame is found out at once.
    """
    womb, age = scenes.womb, [scenes.age_weeks]
    alone = find_linearly(age, scenes.truth)
    far = [womb.depth, womb.slope, womb.curvature, womb.folds[..., 0]]
    near = [womb.near - np.linalg.norm(scenes.probe.apex, axis=1), womb.placenta]
    for wall in (far, near, far + near):
        assert find_linearly(age + wall, scenes.truth) > 0.97 * alone
    size = scenes.face.scale[:, 1]
    own = np.stack([0 * size, -35 * size, 0 * size], axis=1) - scenes.pose.centre
    sphere = np.einsum("nij,nj->ni", scenes.pose.rotation, own) + scenes.pose.shift
    assert find_linearly([*age, sphere, size], scenes.truth) < 0.75 * alone


def test_points_at_the_rim_of_the_face_are_hidden_most(scenes):
    seen = dict(zip(LABELS, scenes.visible.mean(axis=0), strict=True))
    first, second = (scenes.visible[scenes.site == site].mean() for site in (0, 1))
    assert 0.85 < first < 0.92 and 0.75 < second < first - 0.02
    stems = {stem: 0.5 * (seen[stem + "L"] + seen[stem + "R"]) for stem in PAIRS}
    stems |= {label: seen[label] for label in MIDLINE}
    assert max(stems[stem] for stem in ("ex", "ch", "pg")) < min(stems["en"], stems["n"]) - 0.03


def test_what_lies_in_front_hides_what_is_behind_it(scenes):
    hidden, kind, aside = (~scenes.visible).sum(axis=1), scenes.limb.kind, is_aside(scenes.probe)
    without = hidden[(kind == 0) & ~aside].mean()
    assert without < 1.2
    for index in (1, 2, 3):
        assert hidden[(kind == index) & ~aside].mean() > without + 0.4, surroundings.KINDS[index]


def test_kinds_and_aims_are_as_frequent_as_configured(scenes):
    for site, hospital in enumerate(cohort.HOSPITALS):
        kind = scenes.limb.kind[scenes.site == site]
        share = np.bincount(kind, minlength=4) / len(kind)
        np.testing.assert_allclose(share, hospital.kind_shares, atol=0.1)
        aside = is_aside(scenes.probe)[scenes.site == site]
        assert aside.mean() == pytest.approx(hospital.aside_share, abs=0.08)


def test_kind_and_aim_can_be_chosen():
    @jax.jit
    @jax.vmap
    def sample(key, kind, aside):
        scene = cohort.sample_scene(key, key, 29.0, 0, kind=kind, aside=aside)
        return scene.limb.kind, scene.probe  # jit leaves out what these do not depend on

    kind, aside = np.repeat(np.arange(4), 2), np.tile([False, True], 4)
    found, probe = sample(jax.random.split(jax.random.key(0), 8), kind, aside)
    np.testing.assert_array_equal(found, kind)
    np.testing.assert_array_equal(is_aside(jax.tree.map(np.asarray, probe)), aside)


def test_a_scan_that_misses_a_side_shows_the_other(scenes):
    at = np.flatnonzero(is_aside(scenes.probe) & (scenes.limb.kind == 0))
    left, right = (scenes.visible[at, LABELS.index(label)] for label in ("exL", "exR"))
    assert len(at) >= 12
    assert (left != right).mean() >= 0.5 and (left | right).all()


def test_bone_darkens_the_picture_behind_it(scenes, select_scene):
    """With an arm in front, the picture behind it is darker than without."""
    with_arm = select_scene(np.flatnonzero((scenes.limb.kind == 2) & ~is_aside(scenes.probe))[0])
    without = with_arm._replace(limb=with_arm.limb._replace(kind=jnp.int32(0)))
    lit, shaded = (np.asarray(image_scene(s))[::4, ::4, ::4] for s in (without, with_arm))
    phi, theta, reach = (a[::4] for a in beam_grid(with_arm.probe, cohort.BEAMS))
    media = jax.jit(cohort.media_distances, static_argnames="moved")(
        with_arm, phi[:, None, None], theta[:, None], reach, moved=False
    )
    inside = np.asarray(media.core) < 0
    behind = (np.cumsum(inside, axis=-1) > 0) & (np.asarray(media.limb) > 3.0)
    face = np.asarray(media.skin) < 0
    assert (behind & face).sum() > 100
    assert shaded[behind & face].mean() < lit[behind & face].mean() - 0.05


def test_repeated_scans_share_the_child_and_nothing_else(sample_scenes):
    scans = sample_scenes([2] * 8, range(8))
    np.testing.assert_array_equal(scans.own[0], scans.own[1])
    assert float(jnp.abs(scans.truth[0] - scans.truth[1]).max()) > 1.0
    assert float(jnp.abs(scans.probe.apex[0] - scans.probe.apex[1]).max()) > 1.0


def test_rotations_are_proper_and_turn_about_the_named_axis():
    for axis in range(3):
        angles = jnp.zeros(3).at[axis].set(jnp.pi / 2)
        turn = np.asarray(cohort.rotate_about_axes(angles))
        expected = np.zeros(3)
        expected[(axis + 2) % 3] = 1.0  # a quarter turn takes the next axis to the one after
        np.testing.assert_allclose(turn @ np.eye(3)[(axis + 1) % 3], expected, atol=1e-6)
    both = np.asarray(cohort.rotate_about_axes(jnp.array([0.3, -0.5, 0.9])))
    np.testing.assert_allclose(both @ both.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(both) == pytest.approx(1.0, abs=1e-5)


def test_pose_and_back_is_the_identity():
    points = jnp.array(np.random.default_rng(1).normal(0, 20, (19, 3)), jnp.float32)
    pose = jax.jit(cohort.sample_pose)(jax.random.key(2), points, cohort.select_hospital(0))
    back = cohort.invert_pose(pose, *cohort.apply_pose(pose, points).T)
    np.testing.assert_allclose(jnp.stack(back, axis=1), points, atol=1e-4)


def test_face_is_the_right_way_round_in_the_world(scenes):
    at = {label: scenes.landmarks[:, i] for i, label in enumerate(LABELS)}
    assert (at["exR"][:, 0] > at["exL"][:, 0]).all()  # Right
    assert (at["prn"][:, 1] > at["exR"][:, 1]).all()  # Anterior
    assert (at["n"][:, 2] > at["pg"][:, 2]).all()  # Superior


def test_fluid_in_front_of_the_nose_and_tissue_behind(scenes, select_scene):
    scene = select_scene(np.flatnonzero((scenes.limb.kind == 0) & ~is_aside(scenes.probe))[0])
    phi, theta, reach = world_to_beam(scene.probe, *scene.truth[1])
    picture = np.asarray(image_scene(scene))
    planes, lines, samples = picture.shape
    s = int((float(phi / scene.probe.half_angles[1]) + 1) / 2 * (planes - 1))
    i = int((float(theta / scene.probe.half_angles[0]) + 1) / 2 * (lines - 1))
    near, far = np.asarray(scene.probe.reach)
    ray = picture[s - 1 : s + 2, i - 1 : i + 2].mean(axis=(0, 1))
    at = int((float(reach) - near) / (far - near) * (samples - 1))
    assert ray[at : at + 6].mean() > ray[at - 10 : at - 3].mean() + 0.15


def test_plan_follows_the_counts_and_does_not_depend_on_n():
    plan_cohort = jax.jit(cohort.plan_cohort, static_argnums=1)
    plan = plan_cohort(jax.random.key(0), 3000)
    subject, ages, site = (np.asarray(values) for values in plan)
    assert set(ages[site == 0].tolist()) <= set(cohort.AGE_COUNTS)
    assert set(ages[site == 1].tolist()) <= set(cohort.SECOND_AGE_COUNTS)
    assert sum(cohort.AGE_COUNTS.values()) == 725
    assert (ages[site == 0] == 26).mean() == pytest.approx(195 / 725, abs=0.03)
    assert ages[site == 1].mean() > ages[site == 0].mean() + 3.0  # the second sees them later
    assert site.mean() == pytest.approx(cohort.SECOND_SITE_SHARE, abs=0.03)
    assert len(set(subject)) / 3000 == pytest.approx(1 - cohort.REPEAT_SHARE, abs=0.03)
    for values in (ages, site):  # a subject has one age and one site
        assert len(set(zip(subject, values, strict=True))) == len(set(subject))
    shorter = plan_cohort(jax.random.key(0), 50)
    for a, b in zip(plan, shorter, strict=True):
        np.testing.assert_array_equal(a[:50], b)
