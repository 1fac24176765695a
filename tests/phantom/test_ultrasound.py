"""The physics along the rays, the statistics of speckle, and the way from beams to voxels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.phantom import ultrasound
from fetal_jax.phantom.probe import beam_grid, beam_to_world, in_fan, world_to_beam
from fetal_jax.phantom.ultrasound import Media

BEAMS = (64, 128, 256)  # of the cohort: fine enough for the point spread
FAR = jnp.full((1, 200), 99.0)
receive = jax.jit(ultrasound.receive_field)
attenuation_db = jax.jit(ultrasound.attenuation_db)
echo_amplitude = jax.jit(ultrasound.echo_amplitude)
convert_scan = jax.jit(ultrasound.convert_scan, static_argnames="shape")


def layers(**distances):
    """Media of one ray of 200 samples; what is not named is far away."""
    return Media(**{name: distances.get(name, FAR) for name in Media._fields})


def spread_at(site, probe):
    _, _, reach = beam_grid(probe, BEAMS)
    return ultrasound.point_spread(probe, site, BEAMS, reach)


def speckle_field(site, probe, seed=0, level=1.0):
    key, even = jax.random.key(seed), jnp.full(BEAMS, level)
    return receive(key, even, jnp.zeros(BEAMS), spread_at(site, probe))


def speckle(site, probe, seed=0, level=1.0, compounding=0.0):
    field = speckle_field(site, probe, seed, level)
    envelope = ultrasound.detect_envelope(field, jnp.ones(BEAMS), compounding)
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
    field, side = speckle_field(site, probe), 48
    spacing, origin = jnp.full(3, 1.07), jnp.full(3, -0.5 * 47 * 1.07)
    envelope = np.asarray(convert_scan(field, probe, site, spacing, origin, shape=(side,) * 3))
    ticks = np.asarray(origin)[0] + 1.07 * np.arange(side)
    beam = world_to_beam(probe, *np.meshgrid(ticks, ticks, ticks, indexing="ij"))
    inside = np.asarray(in_fan(probe, *beam))
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

    def width_mm(reach):
        sds = ultrasound.point_spread(probe, site, BEAMS, jnp.array([reach]))
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
    volume = jnp.asarray(step + noise, jnp.float32)
    filtered = np.asarray(
        ultrasound.reduce_speckle(
            volume, site._replace(speckle_reduction=jnp.float32(0.8)), jnp.ones(3)
        )
    )
    even = np.s_[4:10, 4:-4, 4:-4]
    assert filtered[even].std() < 0.45 * np.asarray(volume)[even].std()
    assert filtered[even].mean() == pytest.approx(0.2, abs=0.01)
    jump = filtered[15, 4:-4, 4:-4].mean() - filtered[14, 4:-4, 4:-4].mean()
    assert jump > 0.5
    np.testing.assert_array_equal(ultrasound.reduce_speckle(volume, site, jnp.ones(3)), volume)


def test_tissue_takes_two_a_f_depth(site):
    depth = jnp.arange(200.0)[None] * 0.5
    media = layers(skin=10.0 - depth, bone=FAR)
    lost = attenuation_db(media, 0.5, site, True)[0]
    assert float(lost[15]) == 0.0  # fluid takes nothing
    # from 10 to 60 mm: 2 x 0.6 dB/cm/MHz x 4.5 MHz x 5 cm
    assert float(lost[120]) == pytest.approx(2 * 0.6 * 4.5 * 5.0, rel=0.02)


def test_bone_takes_at_its_surfaces_and_within(site):
    depth = jnp.arange(200.0)[None] * 0.1
    media = layers(skin=-jnp.ones((1, 200)), bone=5.0 - depth)
    lost = np.asarray(attenuation_db(media, 0.1, site, True)[0])
    share = ((6.0 - 1.6) / (6.0 + 1.6)) ** 2
    surfaces = 2 * -20 * np.log10(1 - share)
    shell = 2 * 8.0 * 4.5 * 0.12  # 1.2 mm of it
    assert lost[75] - lost[45] == pytest.approx(surfaces + shell, abs=2.5)
    vessel = layers(skin=-jnp.ones((1, 200)), core=5.0 - depth, limb=-jnp.ones((1, 200)))
    dark = np.asarray(attenuation_db(vessel, 0.1, site, jnp.bool_(False))[0])
    hard = np.asarray(attenuation_db(vessel, 0.1, site, jnp.bool_(True))[0])
    assert dark[90] < hard[90] - 20.0  # a cord's vessel throws no shadow, a limb's bone does


def test_a_grazing_ray_is_refracted_away(site):
    """Along a sphere's edge more is lost than through it: the edge shadow."""
    depth = np.arange(200.0) * 0.25 - 25.0

    def lost(beside):  # past a ball of 20 mm of fluid, so that nothing else takes anything
        ball = jnp.asarray(np.hypot(depth, beside) - 20.0, jnp.float32)[None]
        through = attenuation_db(layers(skin=jnp.abs(ball)), 0.25, site, True)
        return float(through[0, -1])

    assert lost(0.0) < 0.5 and lost(24.0) == 0.0
    assert lost(20.0) > 2.0


def test_a_sector_without_contact_is_darker(site):
    loose = site._replace(dropout=jnp.array([[12.0, 0.1, 0.05, 0.2], [0.0, 0.0, 0.1, 0.0]]))
    theta = jnp.array([0.1, 0.4, 0.1])
    phi = jnp.array([0.0, 0.0, 0.5])  # the last one is past the end of the sector
    lost = ultrasound.contact_db(loose, phi, theta)
    np.testing.assert_allclose(lost, [12.0, 0.0, 0.0], atol=0.2)


def test_clutter_fades_and_the_wall_repeats(site):
    reach = jnp.linspace(40.0, 136.0, 500)
    haze, repeats = ultrasound.clutter_amplitude(reach[None] - 60.0, reach, 40.0, site)
    assert float(haze[0]) == pytest.approx(10 ** (-44 / 20), rel=1e-3)
    assert float(haze[-1]) < 0.02 * float(haze[0])
    peaks = [float(repeats[0][np.argmin(np.abs(np.asarray(reach) - at))]) for at in (66, 72, 63)]
    assert peaks[0] == pytest.approx(10 ** (-38 / 20), rel=0.05)
    assert peaks[1] == pytest.approx(0.5 * peaks[0], rel=0.05)
    assert peaks[2] < 1e-3 * peaks[0]


def test_far_wall_echoes_from_the_fluid_only(site):
    depth = jnp.arange(200.0)[None] * 0.2
    wall = 20.0 - depth
    seen = echo_amplitude(layers(far_wall=wall), 0.2, True)
    assert float(seen.max()) == pytest.approx(0.6 * float(ultrasound.SKIN_ECHO), rel=0.05)
    inside = -jnp.ones((1, 200))
    for name in ("near_wall", "skin", "limb"):
        hidden = echo_amplitude(layers(**{"far_wall": wall, name: inside}), 0.2, True)
        assert float(hidden.max()) < 0.02 * float(seen.max()), name


def test_tissue_behind_fluid_is_brighter(site):
    """Gain compensation gives back a loss that fluid did not cause."""
    depth = jnp.arange(200.0)[None] * 0.5
    gain = ultrasound.time_gain_db(40.0 + depth, 40.0, site)
    behind_fluid = layers(skin=50.0 - depth)
    all_tissue = layers(skin=-jnp.ones((1, 200)))
    at = {
        name: float((gain - attenuation_db(media, 0.5, site, True))[0, 110])
        for name, media in (("fluid", behind_fluid), ("tissue", all_tissue))
    }
    assert at["fluid"] > at["tissue"] + 10.0


def test_echo_fades_with_the_angle(site):
    depth = jnp.arange(200.0)[None] * 0.2
    echoes = []
    for degrees in (0.0, 60.0):
        skin = (20.0 - depth) * np.cos(np.deg2rad(degrees))
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
    envelope = jnp.array([1.0, 0.1, 1e-3, 10.0])
    picture = ultrasound.compress(envelope, 50.0, 0.0)
    np.testing.assert_allclose(picture, [1.0, 0.6, 0.0, 1.0], atol=1e-4)
    assert float(ultrasound.compress(jnp.float32(0.1), 50.0, 5.0)) == pytest.approx(0.7, abs=1e-4)


def as_echo(picture):
    """A received field of an echo alone: nothing in it is noise."""
    return jnp.concatenate([jnp.zeros((*BEAMS, 4)), picture[..., None]], axis=-1)


def test_scan_conversion_puts_a_spot_where_it_is(site, probe):
    spot = np.array([8.0, -6.0, 11.0])
    phi, theta, reach = beam_grid(probe, BEAMS)
    r, a, s = beam_to_world(probe, phi[:, None, None], theta[None, :, None], reach[None, None, :])
    away = (r - spot[0]) ** 2 + (a - spot[1]) ** 2 + (s - spot[2]) ** 2
    field = as_echo(jnp.exp(-away / (2 * 3.0**2)))
    spacing, origin = jnp.array([1.0, 1.3, 0.8]), jnp.array([-30.0, -30.0, -20.0])
    volume = np.asarray(
        convert_scan(field, probe, site, spacing, origin, shape=(61, 47, 60)), np.float64
    )
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij"), -1)
    centre = (index * volume[..., None]).sum(axis=(0, 1, 2)) / volume.sum()
    np.testing.assert_allclose(np.asarray(origin) + centre * np.asarray(spacing), spot, atol=0.1)


def test_volume_is_zero_outside_the_fan(site, probe):
    spacing, origin = jnp.full(3, 8.0), jnp.full(3, -92.0)
    field = as_echo(jnp.ones(BEAMS))
    volume = convert_scan(field, probe, site, spacing, origin, shape=(24, 24, 24))
    ticks = -92.0 + 8.0 * np.arange(24)
    grid = np.meshgrid(ticks, ticks, ticks, indexing="ij")
    inside = np.asarray(in_fan(probe, *world_to_beam(probe, *grid)))
    np.testing.assert_array_equal(np.asarray(volume) > 0.5, inside)
    assert 0.1 < inside.mean() < 0.6
