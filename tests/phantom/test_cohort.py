"""Cases: one key makes one case, poses keep the face in the volume, ages follow the study."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.phantom import anatomy, cohort, ultrasound

SIDE, SPACING_MM, BEAMS = 24, 4.0, (16, 32, 64)
simulate = jax.jit(
    jax.vmap(partial(cohort.simulate_case, side=SIDE, spacing_mm=SPACING_MM, beams=BEAMS))
)
draw_scene = jax.jit(cohort.draw_scene)


def simulate_pair(*seeds):
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    return simulate(keys, jnp.full(2, 29.0), jnp.array([0, 1]))


def draw(seed, *, age=29.0, site=0, kind=None, aside=None):
    subject_key, key = jax.random.split(jax.random.key(seed))
    return draw_scene(subject_key, key, age, site, kind=kind, aside=aside)


@pytest.fixture(scope="module")
def pair():
    return simulate_pair(0, 1)


@pytest.fixture(scope="module")
def case(pair):
    return jax.tree.map(lambda leaf: leaf[0], pair)


@pytest.fixture(scope="module")
def scenes():
    ages = (20.0, 29.0, 36.0, 38.0)
    drawn = [draw(700 + i, age=ages[i % 4], site=i % 2) for i in range(400)]
    drawn = [scene._replace(image_key=0) for scene in drawn]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)


def test_shapes_and_ranges(case):
    assert case.volume.shape == (SIDE,) * 3 and case.volume.dtype == jnp.float32
    assert case.landmarks.shape == (19, 3) and case.truth.shape == (20, 3)
    assert case.visible.shape == (19,) and case.visible.dtype == bool
    assert 0.0 <= float(case.volume.min()) and float(case.volume.max()) <= 1.0


def test_one_key_one_case_whoever_is_beside_it(pair):
    other = simulate_pair(2, 1)
    for a, b in zip(pair, other, strict=True):
        np.testing.assert_array_equal(a[1], b[1])
    assert float(jnp.abs(pair.volume[0] - other.volume[0]).max()) > 0.2
    assert float(jnp.abs(pair.landmarks[0] - other.landmarks[0]).max()) > 1.0


def test_landmarks_stay_near_the_centre(scenes):
    assert float(jnp.abs(scenes.truth).max()) <= 46.0  # gnathion included
    assert float(jnp.abs(scenes.truth[:, :19]).max()) <= 41.0 + 1e-3
    assert float(jnp.abs(scenes.landmarks).max()) <= 42.5


def test_pose_is_what_alignment_leaves(scenes):
    middle = 0.5 * (scenes.truth.min(axis=1) + scenes.truth.max(axis=1))
    assert np.abs(middle.mean(axis=0)).max() < 1.0
    assert np.asarray(scenes.pose.shift).std(axis=0) == pytest.approx(4.0, abs=0.6)
    # The trace of a product of three turns of 6 degrees: an angle of 6 sqrt(3) degrees rms.
    trace = np.trace(np.asarray(scenes.pose.rotation), axis1=1, axis2=2)
    turn = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    assert np.sqrt((turn**2).mean()) == pytest.approx(6 * np.sqrt(3), rel=0.12)


def test_visible_landmarks_are_annotated_truly_and_hidden_ones_within_millimetres(scenes):
    off = np.linalg.norm(scenes.landmarks - scenes.truth[:, :19], axis=-1)
    assert off[scenes.visible].max() == 0.0
    assert 1.0 < off[~scenes.visible].mean() < 5.0


def test_ex_and_ch_are_hidden_most(scenes):
    seen = dict(zip(anatomy.LABELS, scenes.visible.mean(axis=0), strict=True))
    assert 0.85 < scenes.visible.mean() < 0.98
    stems = {stem: 0.5 * (seen[stem + "L"] + seen[stem + "R"]) for stem in anatomy.PAIRS}
    stems |= {label: seen[label] for label in anatomy.MIDLINE}
    assert set(sorted(stems, key=stems.get)[:2]) == {"ex", "ch"}


def test_what_lies_in_front_hides_what_is_behind_it():
    hidden = {kind: 0 for kind in range(4)}
    for seed in range(25):
        for kind in hidden:
            scene = draw(seed, kind=kind, aside=False)
            hidden[kind] += int((~scene.visible).sum())
    assert hidden[0] < 15 and all(hidden[kind] > hidden[0] + 10 for kind in (1, 2, 3))


def test_a_scan_that_misses_a_side_shows_the_other():
    counts = []
    for seed in range(12):
        scene = draw(seed, kind=0, aside=True)
        seen = dict(zip(anatomy.LABELS, np.asarray(scene.visible), strict=True))
        counts.append((seen["exL"], seen["exR"]))
    assert sum(a != b for a, b in counts) >= 6 and not any(not a and not b for a, b in counts)


def test_bone_darkens_the_picture_behind_it():
    """With an arm in front, the picture behind it is darker than without."""
    with_arm, without = (draw(3, kind=kind, aside=False) for kind in (2, 0))
    image = jax.jit(cohort.image_scene, static_argnames="beams")
    lit, shaded = (np.asarray(image(s, beams=BEAMS)) for s in (without, with_arm))
    phi, theta, reach = (np.asarray(a) for a in ultrasound.beam_grid(with_arm.probe, BEAMS))
    media = cohort.measure_media(
        with_arm,
        *(jnp.asarray(a) for a in np.meshgrid(phi, theta, reach, indexing="ij")),
        moved=False,
    )
    inside = np.asarray(media.core) < 0
    behind = (np.cumsum(inside, axis=-1) > 0) & (np.asarray(media.limb) > 3.0)
    face = np.asarray(media.skin) < 0
    assert (behind & face).sum() > 100
    assert shaded[behind & face].mean() < lit[behind & face].mean() - 0.05


def test_repeated_scans_share_the_child_and_nothing_else():
    subject_key = jax.random.key(1)
    a, b = (draw_scene(subject_key, jax.random.key(k), 29.0, 0) for k in (2, 3))
    np.testing.assert_array_equal(a.own, b.own)
    assert float(jnp.abs(a.truth - b.truth).max()) > 1.0
    assert float(jnp.abs(a.probe.apex - b.probe.apex).max()) > 1.0


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
    pose = cohort.draw_pose(jax.random.key(2), points)
    back = cohort.invert_pose(pose, *cohort.apply_pose(pose, points).T)
    np.testing.assert_allclose(jnp.stack(back, axis=1), points, atol=1e-4)


def test_face_is_the_right_way_round_in_the_world(scenes):
    at = {label: scenes.landmarks[:, i] for i, label in enumerate(anatomy.LABELS)}
    assert (at["exR"][:, 0] > at["exL"][:, 0]).all()  # Right
    assert (at["prn"][:, 1] > at["exR"][:, 1]).all()  # Anterior
    assert (at["n"][:, 2] > at["pg"][:, 2]).all()  # Superior


def test_fluid_in_front_of_the_nose_and_tissue_behind():
    scene = draw(5, kind=0, aside=False)
    phi, theta, reach = ultrasound.world_to_beam(scene.probe, *scene.truth[1])
    picture = np.asarray(jax.jit(cohort.image_scene)(scene))
    planes, lines, samples = picture.shape
    s = int((float(phi / scene.probe.half_angles[1]) + 1) / 2 * (planes - 1))
    i = int((float(theta / scene.probe.half_angles[0]) + 1) / 2 * (lines - 1))
    near, far = np.asarray(scene.probe.reach)
    ray = picture[s - 1 : s + 2, i - 1 : i + 2].mean(axis=(0, 1))
    at = int((float(reach) - near) / (far - near) * (samples - 1))
    assert ray[at : at + 6].mean() > ray[at - 10 : at - 3].mean() + 0.15


def test_plan_follows_the_counts_and_does_not_depend_on_n():
    plan = cohort.plan_cohort(jax.random.key(0), 3000)
    subject, ages, site = (np.asarray(values) for values in plan)
    assert set(ages.tolist()) <= set(cohort.AGE_COUNTS)
    assert sum(cohort.AGE_COUNTS.values()) == 725
    assert (ages == 26).mean() == pytest.approx(195 / 725, abs=0.03)
    assert site.mean() == pytest.approx(cohort.SECOND_SITE_SHARE, abs=0.03)
    assert len(set(subject)) / 3000 == pytest.approx(1 - cohort.REPEAT_SHARE, abs=0.03)
    for values in (ages, site):  # a subject has one age and one site
        assert len(set(zip(subject, values, strict=True))) == len(set(subject))
    shorter = cohort.plan_cohort(jax.random.key(0), 50)
    for a, b in zip(plan, shorter, strict=True):
        np.testing.assert_array_equal(a[:50], b)
