"""Where the rays go, and back; what the probe sees; how the child moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.phantom.machine import select_site
from fetal_jax.phantom.probe import beam_to_world, child_motion, in_fan, world_to_beam


def test_beam_coordinates_and_back(probe):
    at = np.random.default_rng(0).uniform(-30, 30, (3, 50)).astype(np.float32)
    beam = world_to_beam(probe, *at)
    back = beam_to_world(probe, *beam)
    np.testing.assert_allclose(np.stack(back), at, atol=1e-3)


@pytest.mark.parametrize("site", [0, 1])
def test_sampled_probe_looks_at_the_face(sample_settings, site):
    _, probes = sample_settings(select_site(site))
    axes, apex = np.asarray(probes.axes), np.asarray(probes.apex)
    turned = axes @ np.swapaxes(axes, 1, 2)
    np.testing.assert_allclose(turned, np.broadcast_to(np.eye(3), turned.shape), atol=1e-5)
    distance = np.linalg.norm(apex, axis=1)
    assert 84.0 < distance.min() and distance.max() < 110.0
    assert (np.sum(axes[:, 2] * apex, axis=1) < -0.9 * distance).all()


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ((0.0, 0.0, 0.0), True),
        ((62.0, 0.0, 0.0), True),  # 90 tan 35 = 63.0
        ((64.0, 0.0, 0.0), False),
        ((0.0, 0.0, -64.0), False),
        ((0.0, 49.0, 0.0), True),
        ((0.0, 51.0, 0.0), False),  # nearer than 40 mm
        ((0.0, -47.0, 0.0), False),  # farther than 136 mm
    ],
)
def test_fan(probe, point, inside):
    assert bool(in_fan(probe, *world_to_beam(probe, *point))) == inside


def test_child_moves_smoothly_and_by_little(sample_settings, probe):
    phi = jnp.linspace(-1.0, 1.0, 200) * probe.half_angles[1]
    move = jax.jit(jax.vmap(child_motion, in_axes=(0, None)))
    _, probes = sample_settings(select_site(0))
    moves = np.stack(move(probes, phi), axis=1)  # [30, 3, 200]
    assert 0.2 < moves.std() < 1.0 and np.abs(moves).max() < 4.0
    still = np.median(np.abs(np.diff(moves, axis=-1)).max(axis=(1, 2)))
    assert still < 0.05  # most children do not jerk
