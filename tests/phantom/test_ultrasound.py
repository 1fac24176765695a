"""The physics along the rays, the statistics of speckle, and the way from beams to voxels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.phantom import ultrasound
from fetal_jax.phantom.probe import beam_grid, beam_to_world, in_fan, world_to_beam
from fetal_jax.phantom.ultrasound import Media

BEAMS = (64, 128, 256)  # of the cohort: fine enough for the point spread
FAR = np.full((1, 200), 99.0, np.float32)
GRID = (61, 47, 60)
attenuation_db = jax.jit(ultrasound.attenuation_db)
echo_amplitude = jax.jit(ultrasound.echo_amplitude)
convert_scan = jax.jit(ultrasound.convert_scan, static_argnames="shape")
detect_envelope = jax.jit(ultrasound.detect_envelope)
compress = jax.jit(ultrasound.compress)
reduce_speckle = jax.jit(ultrasound.reduce_speckle)


def layers(**distances):
    """Media of one ray of 200 samples; what is not named is far away."""
    return Media(**{name: distances.get(name, FAR) for name in Media._fields})


@jax.jit
def spread_at(site, probe):
    _, _, reach = beam_grid(probe, BEAMS)
    return ultrasound.point_spread(probe, site, BEAMS, reach)


@jax.jit
def speckle_field(site, probe, seed, level):
    key, even = jax.random.key(seed), jnp.full(BEAMS, level)
    return ultrasound.receive_field(key, even, jnp.zeros(BEAMS), spread_at(site, probe))


@jax.jit
def find_beams(probe, r, a, s):
    """Beam coordinates of RAS+ mm, and whether they lie in the fan."""
    beam = world_to_beam(probe, r, a, s)
    return beam, in_fan(probe, *beam)


def make_places(spacing, origin):
    """RAS+ mm of the voxels of GRID, three arrays."""
    return np.indices(GRID) * spacing.reshape(3, 1, 1, 1) + origin.reshape(3, 1, 1, 1)


def speckle(site, probe, seed=0, level=1.0, compounding=0.0):
    field = speckle_field(site, probe, seed, level)
    envelope = detect_envelope(field, np.ones(BEAMS, np.float32), compounding)
    return np.asarray(envelope)[6:-6, 6:-6, 6:-6]


def test_speckle_is_rayleigh_before_compression_and_even_after(site, probe):
    envelope = speckle(site, probe)
    assert envelope.mean() / envelope.std() == pytest.approx(1.91, abs=0.1)
    assert np.mean(envelope**2) == pytest.approx(1.0, rel=0.05)  # ΣG² = 1 keeps the power
    for level in (1.0, 0.05):
        level_db = 20.0 * np.log10(speckle(site, probe, level=level))
        assert level_db.std() == pytest.approx(5.6, abs=0.5)


def test_speckle_is_the_same_between_the_samples(site, probe):
    """On voxels wherever they lie between the beams: no moire, in contrast nor in brightness."""
    spacing = np.float32([0.83, 1.07, 0.84])
    origin = -0.5 * spacing * (np.float32(GRID) - 1)
    field = speckle_field(site, probe, 0, 1.0)
    envelope = np.asarray(convert_scan(field, probe, site, spacing, origin, shape=GRID))
    beam, inside = find_beams(probe, *make_places(spacing, origin))
    inside = np.asarray(inside)
    assert inside.mean() > 0.9
    phi, theta, reach = (np.asarray(b)[inside] for b in beam)
    half = np.asarray(probe.half_angles)
    at = [(phi / half[1] + 1) / 2, (theta / half[0] + 1) / 2, (reach - 40.0) / 96.0]
    at = [a * (n - 1) for a, n in zip(at, BEAMS, strict=True)]
    apart = sum(np.abs(a - np.rint(a)) for a in at)  # 0 on a sample, 1.5 in the middle of eight
    found = envelope[inside]
    for chosen in (apart < 0.5, apart > 1.0, apart > -1.0):
        assert found[chosen].mean() / found[chosen].std() == pytest.approx(1.91, abs=0.1)
        assert (20.0 * np.log10(found[chosen])).std() == pytest.approx(5.57, abs=0.25)
        assert np.mean(found[chosen] ** 2) == pytest.approx(1.0, rel=0.08)


def test_two_looks_have_less_contrast(site, probe):
    """Of two independent intensities: mean / sd is √2 times that of one."""
    one, two = (speckle(site, probe, compounding=w) ** 2 for w in (0.0, 0.5))
    assert one.mean() / one.std() == pytest.approx(1.0, abs=0.05)
    assert two.mean() / two.std() == pytest.approx(2.0**0.5, abs=0.07)


def test_speckle_is_as_wide_as_the_point_spread(site, probe):
    """For a gaussian spread the intensity's autocovariance is gaussian with the same sd."""
    _, _, reach = beam_grid(probe, BEAMS)
    at_focus = np.abs(np.asarray(reach)[6:-6] - float(site.focus_mm)) < 12.0
    expected = [float(np.asarray(sd)[6:-6][at_focus].mean()) for sd in spread_at(site, probe)]
    for seed in (1, 2):
        intensity = speckle(site, probe, seed)[..., at_focus] ** 2
        intensity = intensity - intensity.mean()
        for axis, sd in enumerate(expected):
            a = np.moveaxis(intensity, axis, 0)
            near = np.mean(a[1:] * a[:-1]) / np.mean(a * a)
            assert np.sqrt(-0.5 / np.log(near)) == pytest.approx(sd, rel=0.12), axis


def test_widths_in_mm_are_the_sites_own(site, probe):
    planes, lines, samples = BEAMS
    focus = float(site.focus_mm)

    point_spread = jax.jit(ultrasound.point_spread, static_argnums=2)

    def width_mm(reach):
        sds = point_spread(probe, site, BEAMS, np.float32([reach]))
        arc = np.deg2rad(70.0)
        steps = [90.0 * arc / (planes - 1), reach * arc / (lines - 1), 96 / (samples - 1)]
        return 2.355 * np.concatenate(sds) * steps

    own = [site.sweep_mm, site.lateral_mm, site.axial_mm]
    np.testing.assert_allclose(width_mm(focus), own, rtol=1e-3)
    for reach in (focus - 45.0, focus + 45.0):  # narrowest at the focus
        assert width_mm(reach)[1] == pytest.approx(2**0.5 * float(site.lateral_mm), rel=1e-3)


def test_filter_takes_speckle_and_leaves_edges(site):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 5.57 / float(site.dynamic_range_db), (30, 30, 30))
    step = np.where(np.arange(30)[:, None, None] < 15, 0.2, 0.8)
    volume, spacing = np.float32(step + noise), np.ones(3, np.float32)
    strong = site._replace(speckle_reduction=np.float32(0.8))
    filtered = np.asarray(reduce_speckle(volume, strong, spacing))
    even = np.s_[4:10, 4:-4, 4:-4]
    assert filtered[even].std() < 0.45 * volume[even].std()
    assert filtered[even].mean() == pytest.approx(0.2, abs=0.01)
    jump = filtered[15, 4:-4, 4:-4].mean() - filtered[14, 4:-4, 4:-4].mean()
    assert jump > 0.5
    np.testing.assert_array_equal(reduce_speckle(volume, site, spacing), volume)


def test_tissue_takes_two_a_f_depth(site):
    depth = np.arange(200, dtype=np.float32)[None] * 0.5
    media = layers(skin=10.0 - depth, bone=FAR)
    lost = np.asarray(attenuation_db(media, 0.5, site, True)[0])
    assert float(lost[15]) == 0.0  # fluid takes nothing
    # from 10 to 60 mm: 2 x 0.6 dB/cm/MHz x 4.5 MHz x 5 cm
    assert float(lost[120]) == pytest.approx(2 * 0.6 * 4.5 * 5.0, rel=0.02)


def test_bone_takes_at_its_surfaces_and_within(site):
    depth = np.arange(200, dtype=np.float32)[None] * 0.1
    media = layers(skin=-np.ones((1, 200), np.float32), bone=5.0 - depth)
    lost = np.asarray(attenuation_db(media, 0.1, site, True)[0])
    share = ((6.0 - 1.6) / (6.0 + 1.6)) ** 2
    surfaces = 2 * -20 * np.log10(1 - share)
    shell = 2 * 8.0 * 4.5 * 0.12  # 1.2 mm of it
    assert lost[75] - lost[45] == pytest.approx(surfaces + shell, abs=2.5)
    vessel = layers(
        skin=-np.ones((1, 200), np.float32), core=5.0 - depth, limb=-np.ones((1, 200), np.float32)
    )
    dark = np.asarray(attenuation_db(vessel, 0.1, site, False)[0])
    hard = np.asarray(attenuation_db(vessel, 0.1, site, True)[0])
    assert dark[90] < hard[90] - 20.0  # a cord's vessel throws no shadow, a limb's bone does


def test_a_grazing_ray_is_refracted_away(site):
    """Along a sphere's edge more is lost than through it: the edge shadow."""
    depth = np.arange(200.0) * 0.25 - 25.0

    def lost(beside):  # past a ball of 20 mm of fluid, so that nothing else takes anything
        ball = np.float32(np.hypot(depth, beside) - 20.0)[None]
        through = attenuation_db(layers(skin=np.abs(ball)), 0.25, site, True)
        return float(np.asarray(through)[0, -1])

    assert lost(0.0) < 0.5 and lost(24.0) == 0.0
    assert lost(20.0) > 2.0


def test_a_sector_without_contact_is_darker(site):
    loose = site._replace(dropout=np.float32([[12.0, 0.1, 0.05, 0.2], [0.0, 0.0, 0.1, 0.0]]))
    theta = np.float32([0.1, 0.4, 0.1])
    phi = np.float32([0.0, 0.0, 0.5])  # the last one is past the end of the sector
    lost = jax.jit(ultrasound.contact_db)(loose, phi, theta)
    np.testing.assert_allclose(lost, [12.0, 0.0, 0.0], atol=0.2)


def test_clutter_fades_and_the_wall_repeats(site):
    reach = np.linspace(40.0, 136.0, 500, dtype=np.float32)
    clutter_amplitude = jax.jit(ultrasound.clutter_amplitude)
    haze, repeats = map(np.asarray, clutter_amplitude(reach[None] - 60.0, reach, 40.0, site))
    assert float(haze[0]) == pytest.approx(10 ** (-44 / 20), rel=1e-3)
    assert float(haze[-1]) < 0.02 * float(haze[0])
    peaks = [float(repeats[0][np.argmin(np.abs(reach - at))]) for at in (66, 72, 63)]
    assert peaks[0] == pytest.approx(10 ** (-38 / 20), rel=0.05)
    assert peaks[1] == pytest.approx(0.5 * peaks[0], rel=0.05)
    assert peaks[2] < 1e-3 * peaks[0]


def test_far_wall_echoes_from_the_fluid_only(site):
    depth = np.arange(200, dtype=np.float32)[None] * 0.2
    wall = 20.0 - depth
    seen = echo_amplitude(layers(far_wall=wall), 0.2, True)
    assert float(seen.max()) == pytest.approx(0.6 * float(ultrasound.SKIN_ECHO), rel=0.05)
    inside = -np.ones((1, 200), np.float32)
    for name in ("near_wall", "skin", "limb"):
        hidden = echo_amplitude(layers(**{"far_wall": wall, name: inside}), 0.2, True)
        assert float(hidden.max()) < 0.02 * float(seen.max()), name


def test_tissue_behind_fluid_is_brighter(site):
    """Gain compensation gives back a loss that fluid did not cause."""
    depth = np.arange(200, dtype=np.float32)[None] * 0.5
    gain = np.asarray(jax.jit(ultrasound.time_gain_db)(40.0 + depth, 40.0, site))
    behind_fluid = layers(skin=50.0 - depth)
    all_tissue = layers(skin=-np.ones((1, 200), np.float32))
    at = {
        name: float((gain - np.asarray(attenuation_db(media, 0.5, site, True)))[0, 110])
        for name, media in (("fluid", behind_fluid), ("tissue", all_tissue))
    }
    assert at["fluid"] > at["tissue"] + 10.0


def test_echo_fades_with_the_angle(site):
    depth = np.arange(200, dtype=np.float32)[None] * 0.2
    echoes = []
    for degrees in (0.0, 60.0):
        skin = (20.0 - depth) * np.float32(np.cos(np.deg2rad(degrees)))
        bright = echo_amplitude(layers(skin=skin), 0.2, True)
        echoes.append(float(bright.max()))
    assert echoes[0] == pytest.approx(float(ultrasound.SKIN_ECHO), rel=0.05)
    assert echoes[1] == pytest.approx(echoes[0] * 0.25, rel=0.1)  # cos² of 60°
    leaving = echo_amplitude(layers(skin=depth - 20.0), 0.2, True)
    assert float(leaving.max()) == 0.0  # the far side of a thing does not face the probe


def test_reflection_is_that_of_the_impedances():
    assert ultrasound.reflectance(1.5, 1.6) == pytest.approx(0.001, abs=1e-4)
    assert 0.27 < ultrasound.reflectance(1.6, 6.0) < 0.44


def test_log_compression():
    picture = compress(np.float32([1.0, 0.1, 1e-3, 10.0]), 50.0, 0.0)
    np.testing.assert_allclose(picture, [1.0, 0.6, 0.0, 1.0], atol=1e-4)
    assert float(compress(np.float32(0.1), 50.0, 5.0)) == pytest.approx(0.7, abs=1e-4)


def as_echo(picture):
    """A received field of an echo alone: nothing in it is noise."""
    return np.concatenate([np.zeros((*BEAMS, 4), np.float32), picture[..., None]], axis=-1)


def test_scan_conversion_puts_a_spot_where_it_is(site, probe):
    spot = np.array([8.0, -6.0, 11.0])

    @jax.jit
    def paint(probe):
        phi, theta, reach = beam_grid(probe, BEAMS)
        beams = phi[:, None, None], theta[None, :, None], reach[None, None, :]
        r, a, s = beam_to_world(probe, *beams)
        away = (r - spot[0]) ** 2 + (a - spot[1]) ** 2 + (s - spot[2]) ** 2
        return jnp.exp(-away / (2 * 3.0**2))

    spacing, origin = np.float32([1.0, 1.3, 0.8]), np.float32([-30.0, -30.0, -20.0])
    volume = convert_scan(as_echo(paint(probe)), probe, site, spacing, origin, shape=GRID)
    volume = np.asarray(volume, np.float64)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij"), -1)
    centre = (index * volume[..., None]).sum(axis=(0, 1, 2)) / volume.sum()
    np.testing.assert_allclose(origin + centre * spacing, spot, atol=0.1)


def test_volume_is_zero_outside_the_fan(site, probe):
    spacing, origin = np.float32([3.0, 4.0, 3.0]), np.full(3, -92.0, np.float32)
    field = as_echo(np.ones(BEAMS, np.float32))
    volume = convert_scan(field, probe, site, spacing, origin, shape=GRID)
    _, inside = find_beams(probe, *make_places(spacing, origin))
    inside = np.asarray(inside)
    np.testing.assert_array_equal(np.asarray(volume) > 0.5, inside)
    assert 0.1 < inside.mean() < 0.6
