"""What the phantom's tests share: sampled once, by programs that are compiled once."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.phantom import anatomy, cohort
from fetal_jax.phantom.machine import Machine, Site, sample_machine, select_site
from fetal_jax.phantom.probe import Probe, sample_probe

BATCH = 8
AGES = (20.0, 26.0, 29.0, 36.0, 38.0)
CHILDREN = 240  # 48 of each age, at both sites


@jax.jit
@jax.vmap
def _sample(child, scan, age_weeks, site):
    return cohort.sample_scene(jax.random.key(child), jax.random.key(scan), age_weeks, site)


def _sample_scenes(children, scans):
    """Eight scenes as one tree of arrays [8, ...]; the child's number decides its age and site."""
    children, scans = np.array(children), np.array(scans)
    ages = np.array(AGES, np.float32)[children % len(AGES)]
    return _sample(children, scans, ages, children // len(AGES) % 2)


@pytest.fixture(scope="session")
def sample_scenes():
    return _sample_scenes


@pytest.fixture(scope="session")
def scenes(make_once):
    """Scenes of 240 children as a tree of NumPy arrays [240, ...]; image_key holds its raw bits."""

    def make(path):
        batches = []
        for first in range(0, CHILDREN, BATCH):
            children = np.arange(first, first + BATCH)
            batch = _sample_scenes(children, 1000 + children)
            batches.append(batch._replace(image_key=jax.random.key_data(batch.image_key)))
        every = jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)
        path.write_bytes(pickle.dumps(every))

    return pickle.loads(make_once("scenes", make).read_bytes())


@pytest.fixture(scope="session")
def select_scene(scenes):
    """A function from an index to that scene alone, as the simulator takes it."""

    def select(i):
        scene = jax.tree.map(lambda leaf: jnp.asarray(leaf[i]), scenes)
        return scene._replace(image_key=jax.random.wrap_key_data(scene.image_key))

    return select


@pytest.fixture(scope="session")
def template_face():
    """The mean child of 29 weeks: every factor 1, no asymmetry, the mouth closed."""
    template = {
        "n": (0, 0, 0),
        "prn": (0, -13, 9),
        "sn": (0, -17, 4.5),
        "ls": (0, -24, 5.5),
        "li": (0, -29.5, 4.5),
        "sl": (0, -33, 2),
        "pg": (0, -37, 2.5),
        "gn": (0, -39.7, 1.2),
        "en": (8.5, -3, -4),
        "ex": (21.9, -3, -10),
        "al": (8.5, -14, 1),
        "ac": (8, -15.5, -1.5),
        "cph": (2.8, -23.5, 5),
        "ch": (10.5, -27, 0),
    }
    return anatomy.Face(
        points={stem: jnp.array(p, jnp.float32) for stem, p in template.items()},
        fullness=jnp.float32(1.0),
        cranium=jnp.array([38.0, 40.0, 47.0]),
        zygion=jnp.float32(25.4),
        gape=jnp.float32(0.0),
        scale=jnp.ones(2),
        skew=jnp.zeros(3),
        cleft=jnp.float32(0.0),
        cleft_side=jnp.float32(1.0),
        setback=jnp.float32(0.0),
    )


@pytest.fixture(scope="session")
def place_landmarks():
    return jax.jit(anatomy.place_landmarks)


@pytest.fixture(scope="session")
def template_points(template_face, place_landmarks):
    """[20, 3] mm, in anatomy.POINTS' order."""
    return place_landmarks(template_face)


@jax.jit
def _sample_settings(site):
    """Settings and probes of thirty scans at a site."""

    def sample(key):
        machine = sample_machine(jax.random.fold_in(key, 1), site)
        return machine, sample_probe(key, machine, aside=False)

    return jax.vmap(sample)(jax.random.split(jax.random.key(0), 30))


@pytest.fixture(scope="session")
def sample_settings():
    return _sample_settings


@pytest.fixture
def site():
    """The first site's mean settings, without dropped sectors, bends, filter and second look."""
    first = select_site(0)
    varied = {
        name: getattr(first, name)[0]
        for name in Machine._fields
        if name in Site._fields and getattr(first, name).shape == (2,)
    }
    fixed = {
        "half_angles_deg": first.half_angles_deg,
        "time_gain_bend_db": jnp.zeros(2),
        "compounding": jnp.float32(0.0),
        "speckle_reduction": jnp.float32(0.0),
        "repeat_mm": jnp.float32(6.0),
        "dropout": jnp.array([[0.0, 0.0, 0.1, 0.0]] * 2),
        "axial_mm": first.axial_mm,
        "lateral_mm": first.lateral_mm,
        "sweep_mm": first.sweep_mm,
    }
    return Machine(**(varied | fixed))


@pytest.fixture
def probe():
    """90 mm in front of the origin, looking straight back, 35 degrees to each side, no motion."""
    return Probe(
        apex=jnp.array([0.0, 90.0, 0.0]),
        axes=jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]),
        half_angles=jnp.deg2rad(jnp.array([35.0, 35.0])),
        reach=jnp.array([40.0, 136.0]),
        motion=jnp.zeros((3, 3, 2)),
        jerk=jnp.zeros(4),
    )
