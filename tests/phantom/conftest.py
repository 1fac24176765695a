"""What the phantom's tests share: sampled once, by programs that are compiled once."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.phantom import anatomy, cohort

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
