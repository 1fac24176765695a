"""Artefacts of ultrasound: where they lie, how strong they are, and what they leave alone."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy import stats

from fetal_jax import artefacts
from fetal_jax.examples import Examples

SHAPE = (24, 20, 16)
KEYS = jax.random.split(jax.random.key(0), 200)
AHEAD = np.float32([-1.0, 0.0, 0.0])  # an apex before the first axis
MEMBERS = {
    "speckle": (artefacts.random_speckle, "max_speckle", 1.0),
    "attenuation": (artefacts.random_attenuation, "max_attenuation_db", 30.0),
    "shadow": (artefacts.random_shadow, "max_shadow_db", 60.0),
    "dropout": (artefacts.random_dropout, "max_dropout_degrees", 40.0),
}
each_member = pytest.mark.parametrize("member", MEMBERS)


def build(member, share=1.0):
    build_member, name, limit = MEMBERS[member]
    return build_member(**{name: share * limit})


def make_example(volume):
    points = np.random.default_rng(0).uniform(0, 15, (5, 3)).astype(np.float32)
    there = np.arange(5) > 0
    return Examples(np.float32(volume), points_vox=points, present=there, visible=there)


def random_volume(shape=SHAPE):
    return np.random.default_rng(1).uniform(0.2, 0.9, shape).astype(np.float32)


def sample_volumes(member, volume, count=200):
    """What a member makes of a volume with each of the keys, float64."""
    augment = build(member)

    @jax.jit
    def draw(keys, example):
        return jax.lax.map(lambda key: augment(key, example).volumes, keys)

    return np.asarray(draw(KEYS[:count], make_example(volume)), np.float64)


def measure_places(apex, shape=SHAPE):
    """Each voxel from the apex, in longest sides: [D, H, W, 3]."""
    middle = (np.array(shape) - 1) / 2
    return (np.moveaxis(np.indices(shape), 0, -1) - middle) / max(shape) - apex


def measure_angles(apex, axis):
    """Radians between each voxel's ray and that along `axis`."""
    away = measure_places(apex)
    cosine = away @ axis / np.linalg.norm(away, axis=-1) / np.linalg.norm(axis)
    return np.arccos(np.clip(cosine, -1, 1))


# ---- what all of them keep ----


@each_member
def test_only_the_intensities_change_and_they_stay_in_their_range(member):
    example, augment = make_example(random_volume()), jax.jit(build(member))
    changed = 0
    for key in KEYS[:10]:
        found = augment(key, example)
        for name, value in example._asdict().items():
            if name != "volumes" and value is not None:
                np.testing.assert_array_equal(getattr(found, name), value)
        assert found.volumes.dtype == np.float32 and found.volumes.shape == SHAPE
        volume = np.asarray(found.volumes)
        assert volume.min() >= 0 and volume.max() <= 1
        changed += bool(np.abs(volume - example.volumes).max() > 0.02)
    assert changed >= 5


@each_member
def test_where_no_echo_came_back_there_is_still_none(member):
    volume = random_volume()
    volume[:, :9] = 0.0
    found = sample_volumes(member, volume, 20)
    assert not found[:, :, :9].any() and found.any()


@each_member
def test_a_limit_of_0_changes_nothing(member):
    example = make_example(random_volume())
    found = jax.jit(build(member, 0.0))(KEYS[0], example)
    np.testing.assert_allclose(found.volumes, example.volumes, atol=1e-7)


@each_member
def test_an_example_is_decided_by_its_key_in_a_batch_too(member):
    volumes = [random_volume(), random_volume()]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *map(make_example, volumes))
    augment = build(member)
    found = np.asarray(jax.jit(jax.vmap(augment))(KEYS[:2], batch).volumes)
    assert np.abs(found[0] - found[1]).max() > 0.02
    for i in range(2):
        alone = jax.jit(augment)(KEYS[i], make_example(volumes[i]))
        np.testing.assert_allclose(found[i], alone.volumes, atol=1e-4)


@each_member
def test_a_batch_is_no_example(member):
    with pytest.raises(ValueError, match=r"expected a volume \[D, H, W\]"):
        build(member)(KEYS[0], make_example(random_volume((2, *SHAPE))))


# ---- beams ----


def test_beams_are_rays_from_the_apex():
    apex = np.float32([0.6, -0.7, 0.4])
    beams = artefacts.make_beams(apex, SHAPE)
    away = measure_places(apex)
    np.testing.assert_allclose(beams.reach, np.linalg.norm(away, axis=-1), rtol=1e-5)
    back = np.stack(beams.directions, axis=-1) * np.asarray(beams.reach)[..., None]
    np.testing.assert_allclose(back, away, atol=1e-6)


def test_the_probe_looks_from_any_side():
    apexes = np.asarray(jax.vmap(artefacts.sample_apex)(jax.random.split(jax.random.key(1), 2000)))
    np.testing.assert_allclose(np.linalg.norm(apexes, axis=1), 1.0, rtol=1e-5)
    for coordinate in apexes.T:  # of a uniform direction: uniform in [-1, 1]
        assert stats.kstest(coordinate, stats.uniform(-1, 2).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("apex", "shape"), [((0.0, 1.0), SHAPE), ((0.0, 0.0, 1.0), (8, 8))], ids=str
)
def test_beams_through_what_is_no_volume(apex, shape):
    with pytest.raises(ValueError, match="expected .* got"):
        artefacts.make_beams(np.float32(apex), shape)


# ---- speckle ----


def test_speckle_is_rayleigh_and_correlated_as_its_point_spread():
    """Of full strength on grey: 60 (x - 0.5) dB above the mean, the amplitude Rayleigh."""
    shape, spread = (40, 40, 40), np.float32([0.3, 1.0, 2.0])
    speckle = jax.jit(partial(artefacts.add_speckle, share=0.5))
    found = speckle(jax.random.key(3), np.full(shape, 0.5, np.float32), spread_vox=spread)
    # the share 0.5 so that nothing is cut; back to full strength
    level_db = 60 * (np.asarray(found, np.float64) - 0.5) / 0.5 - 2.507
    amplitude = 10 ** (level_db / 20)
    few = amplitude[:, ::4, ::8]  # far enough from each other to be independent
    assert stats.kstest(few.ravel(), stats.rayleigh(scale=np.sqrt(0.5)).cdf).pvalue > 0.01
    assert level_db.std() == pytest.approx(5.57, abs=0.25)
    assert level_db.mean() == pytest.approx(-2.507, abs=0.25)
    # of power, exp(-lag² / 2 sd²): the square of that of the complex amplitude, exp(-lag² / 4 sd²)
    power = amplitude**2 - np.mean(amplitude**2)
    for axis, sd in enumerate(spread):
        ahead, behind = (np.take(power, np.arange(n, n + 39), axis=axis) for n in (1, 0))
        expected = np.exp(-1 / (2 * sd**2))
        assert np.mean(ahead * behind) / np.mean(power**2) == pytest.approx(expected, abs=0.06)


def test_speckle_is_of_all_strengths_up_to_the_limit():
    level_db = 60 * (sample_volumes("speckle", np.full(SHAPE, 0.5)) - 0.5)
    sd = level_db.std(axis=(1, 2, 3))
    assert sd.min() < 0.3 and 4.5 < sd.max() < 6.5
    assert stats.kstest(sd / 5.4, stats.uniform(0, 1.1).cdf).pvalue > 0.01


# ---- time-gain ----


def test_a_wrong_time_gain_is_linear_in_depth_and_0_in_the_middle():
    beams = artefacts.make_beams(AHEAD, SHAPE)
    found = artefacts.change_time_gain(np.full(SHAPE, 0.5, np.float32), beams, -12.0)
    reach = np.linalg.norm(measure_places(AHEAD), axis=-1)
    np.testing.assert_allclose(found, 0.5 - 12.0 / 60 * (reach - 1), atol=1e-5)


def test_time_gain_errs_both_ways_up_to_its_limit():
    shape = (21, 21, 21)
    change_db = 60 * (sample_volumes("attenuation", np.full(shape, 0.5)) - 0.5)
    np.testing.assert_allclose(change_db[:, 10, 10, 10], 0.0, atol=1e-4)
    steps = [np.diff(change_db, axis=axis + 1)[:, 9:11, 9:11, 9:11] for axis in range(3)]
    slopes = [21 * step.mean(axis=(1, 2, 3)) for step in steps]
    slope = np.linalg.norm(slopes, axis=0)  # that of a distance is 1, whatever the side
    assert stats.kstest(slope, stats.uniform(0, 30.0).cdf).pvalue > 0.01
    assert slope.max() > 29
    far = change_db[:, 10, 10, 0] + change_db[:, 10, 10, 20]  # rays that fan out: reach is convex
    assert 0.35 < (far > 0).mean() < 0.65


# ---- shadow ----


def test_a_shadow_lies_behind_its_reflector_and_is_as_wide_as_it_should():
    shape, reflector, radians = (48, 48, 48), np.array([20, 30, 22]), 0.2
    volume = np.full(shape, 0.9, np.float32)
    beams = artefacts.make_beams(AHEAD, shape)
    found = np.asarray(artefacts.cast_shadow(volume, beams, reflector, radians, 24.0))
    away = measure_places(AHEAD, shape)
    axis, reach = away[tuple(reflector)], np.linalg.norm(away, axis=-1)
    cosine = away @ axis / reach / np.linalg.norm(axis)
    angles = np.arccos(np.clip(cosine, -1, 1))
    deep = reach - np.linalg.norm(axis)
    core = (angles < 0.45 * radians) & (deep > 0.05)
    outside = (angles > 1.02 * radians) | (deep < 0.01)
    assert core.sum() > 200 and outside.sum() > 1000
    np.testing.assert_allclose(found[core], 0.9 - 24.0 / 60, atol=1e-5)
    np.testing.assert_array_equal(found[outside], volume[outside])
    edge = ~core & ~outside & (deep > 0.05)
    middle = np.abs(angles - 0.75 * radians) < 0.02 * radians
    np.testing.assert_allclose(found[edge & middle], 0.9 - 12.0 / 60, atol=0.02)


def test_a_shadow_begins_at_what_is_bright():
    """It touches a bright ball in a corner; without one it begins anywhere."""
    away = np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) - 5.0, axis=-1)
    ball = away < 5.5  # a 12th of the volume: of 64 glances all miss it once in 300
    share = {}
    for name, volume in {"ball": np.where(ball, 0.9, 0.5), "none": np.full(SHAPE, 0.5)}.items():
        found = sample_volumes("shadow", volume)
        assert (found <= volume + 1e-6).all()
        darker = found < volume - 0.02
        touched = [ball[each].any() for each in darker if each.any()]
        assert len(touched) > 0.7 * len(KEYS)
        share[name] = np.mean(touched)
    assert share["ball"] > 0.9 and share["none"] < 0.6


def test_a_shadow_takes_up_to_its_limit():
    volume = np.full(SHAPE, 1.0, np.float32)
    taken_db = 60 * (1 - sample_volumes("shadow", volume).min(axis=(1, 2, 3)))
    assert 50 < taken_db.max() <= 60.001
    assert np.quantile(taken_db, 0.25) < 25


# ---- dropout ----


def test_a_dropped_sector_is_0_from_edge_to_edge_and_nothing_else():
    volume, across = random_volume(), np.float32([0.0, 0.6, 0.8])
    beams = artefacts.make_beams(AHEAD, SHAPE)
    found = np.asarray(artefacts.drop_sector(volume, beams, across, 0.1, 0.15))
    angle = np.pi / 2 - measure_angles(AHEAD, across)  # to the plane
    assert np.abs(angle - 0.1).min() < 0.05
    clear = np.abs(np.abs(angle - 0.1) - 0.15) > 1e-4
    dropped = np.abs(angle - 0.1) < 0.15
    np.testing.assert_array_equal(found[clear], np.where(dropped, 0.0, volume)[clear])
    assert 0.1 < dropped.mean() < 0.9


def test_sectors_are_of_all_widths_up_to_the_limit():
    dropped = (sample_volumes("dropout", np.ones(SHAPE)) == 0).mean(axis=(1, 2, 3))
    # 40 degrees at a distance of 1 are 2 tan 20° = 0.73 of the longest side
    assert dropped.min() < 0.05 and 0.4 < dropped.max() < 0.95
    assert 0.1 < dropped.mean() < 0.5
