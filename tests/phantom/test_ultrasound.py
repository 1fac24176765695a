"""The picture: fan, shadow, speckle, and what is dark and bright in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.phantom import ultrasound
from fetal_jax.phantom.anatomy import Tissue

SIDE = 40
render_jit = jax.jit(ultrasound.render_volume, static_argnames="spacing_mm")


@pytest.fixture
def probe():
    """80 mm ahead, straight, 30 degrees to each side, no shadow, 50 dB."""
    return ultrasound.Probe(
        apex=jnp.array([0.0, 80.0, 0.0]),
        aim=jnp.zeros(2),
        opening=jnp.array([np.tan(np.pi / 6)] * 2, jnp.float32),
        reach=jnp.array([20.0, 130.0]),
        shadow_normal=jnp.array([1.0, 0.0]),
        shadow_edges=jnp.array([0.1, -9.0]),
        shadow_range=jnp.float32(40.0),
        wall=jnp.float32(0.0),
        dynamic_range_db=jnp.float32(50.0),
    )


def grid():
    ticks = jnp.arange(SIDE) - 0.5 * (SIDE - 1)
    return jnp.meshgrid(ticks, ticks, ticks, indexing="ij")


def slab(a, skin_a=10.0, bone_a=-100.0):
    """Flat layers across the beam: fluid above `skin_a`, tissue, bone below `bone_a`, no eyes."""
    return Tissue(skin=a - skin_a, bone=a - bone_a, eye=jnp.full(a.shape, 50.0))


def render(probe, tissue, key=0):
    return np.asarray(render_jit(jax.random.key(key), tissue, probe, *grid(), spacing_mm=1.0))


def test_volume_is_in_the_unit_range_and_finite(probe):
    _, a, _ = grid()
    volume = render(probe, slab(a, bone_a=0.0))
    assert volume.shape == (SIDE,) * 3 and volume.dtype == np.float32
    assert volume.min() == 0.0 and 0.8 < volume.max() <= 1.0


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ((0.0, 0.0, 0.0), True),
        ((45.0, 0.0, 0.0), True),  # 80 tan 30 = 46.2
        ((47.0, 0.0, 0.0), False),
        ((0.0, 0.0, -47.0), False),
        ((0.0, 59.0, 0.0), True),
        ((0.0, 61.0, 0.0), False),  # nearer than 20 mm
        ((0.0, -51.0, 0.0), False),  # farther than 130 mm
    ],
)
def test_visible_where_the_fan_reaches(probe, point, inside):
    assert ultrasound.find_visible(probe, jnp.array([point])).tolist() == [inside]


@pytest.mark.parametrize(
    ("point", "seen"),
    [
        ((7.0, 0.0, 0.0), True),  # tangent 0.0875, before the wedge's first edge
        ((9.0, 0.0, 0.0), False),  # tangent 0.1125
        ((23.0, 0.0, 0.0), False),
        ((25.0, 0.0, 0.0), True),  # tangent 0.3125, past the second edge
        ((6.0, 45.0, 0.0), True),  # in the wedge but nearer than what shades
    ],
)
def test_invisible_in_the_wedge_behind_what_shades(probe, point, seen):
    shaded = probe._replace(shadow_edges=jnp.array([0.1, 0.3]))
    assert ultrasound.find_visible(shaded, jnp.array([point])).tolist() == [seen]
    assert ultrasound.find_visible(probe, jnp.array([point])).tolist() == [True]


def test_shadow_darkens_the_picture_where_points_are_invisible(probe):
    r, a, s = grid()
    shaded = probe._replace(shadow_edges=jnp.array([0.1, 0.3]))
    tissue = slab(a)
    clear, dark = render(probe, tissue), render(shaded, tissue)
    points = jnp.stack([r, a, s], axis=-1).reshape(-1, 3)
    hidden = ~np.asarray(ultrasound.find_visible(shaded, points)).reshape(r.shape)
    deep = np.asarray(a) < 5.0
    # 34 dB of 50, less what the blur brings in over the edge and the cut at 0.
    assert (clear - dark)[hidden & deep].mean() > 0.3
    far = np.asarray(r) < 0.0  # more than the blur's width from the wedge
    np.testing.assert_array_equal(clear[far], dark[far])


def test_zero_outside_the_fan(probe):
    r, a, _ = grid()
    narrow = probe._replace(opening=jnp.array([0.1, 0.1]))
    volume = render(narrow, slab(a))
    assert (volume[np.abs(np.asarray(r)) > 0.1 * (80.0 - np.asarray(a))] == 0.0).all()
    assert volume[SIDE // 2, :, SIDE // 2].max() > 0.3


def test_order_of_brightness(probe):
    _, a, _ = grid()
    volume, a = render(probe, slab(a, skin_a=10.0, bone_a=0.0)), np.asarray(a)
    fluid = volume[a > 13].mean()
    skin = volume[np.abs(a - 10) < 1].mean()
    tissue = volume[(a < 8) & (a > 2)].mean()
    bone = volume[np.abs(a) < 1].mean()
    behind = volume[a < -5].mean()
    assert fluid + 0.2 < behind + 0.2 < tissue < skin < bone


def test_speckle_is_that_of_a_rayleigh_envelope(probe):
    """Its sd is 5.57 dB; neighbours along the beam are independent, so they differ by √2 of it."""
    _, a, _ = grid()
    wide = probe._replace(dynamic_range_db=jnp.float32(120.0), opening=jnp.array([5.0, 5.0]))
    level_db = 120.0 * render(wide, slab(a, skin_a=100.0), key=3)[5:-5, :, 5:-5]
    step_db = np.diff(level_db, axis=1)  # in which the slow change of the tissue all but cancels
    assert step_db.std() == pytest.approx(np.sqrt(2) * 5.57, rel=0.04)


def test_share_of_shadows_is_kept():
    probes = jax.vmap(lambda k: ultrasound.draw_probe(k, shadow_share=0.35))(
        jax.random.split(jax.random.key(0), 600)
    )
    shaded = np.asarray(probes.shadow_edges[:, 1] > probes.shadow_edges[:, 0])
    assert shaded.mean() == pytest.approx(0.35, abs=0.06)
    assert float(probes.dynamic_range_db.min()) >= 40 and float(probes.dynamic_range_db.max()) <= 60
