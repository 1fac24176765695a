"""A volume split along its depth over devices: the numbers of one device, and less memory each."""

import re
from functools import cache, partial

import jax
import numpy as np
import optax
import pytest

from fetal_jax import augment
from fetal_jax.detectors.detector import Trained
from fetal_jax.detectors.heatmap_detector import heatmap_detector
from fetal_jax.examples import Examples
from fetal_jax.losses import Target
from fetal_jax.models.resunet3d import ResUNet3D
from fetal_jax.training import parallel
from fetal_jax.training.step import create_state, train_step

SIDE, LANDMARKS, BATCH = 12, 3, 2
LARGE = 32  # where the maps, and not the parameters, are what takes memory
SGD = optax.sgd(0.1)
DETECTOR = heatmap_detector(
    ResUNet3D(LANDMARKS, (4, 6), groups=0, shortcut_size=1),
    loss="emd",
    factors={"omega": 0.5},
    target=Target("gaussian", 3.0, 2.0),
    on_completed=True,
    confidence_radius_mm=4.0,
    radii_mm=np.linspace(1.0, 40.0, 20, dtype=np.float32),
)
AUGMENT = augment.chain(
    augment.random_motion(max_degrees=20.0, max_scale=0.1, max_shift_vox=1.0),
    augment.random_intensity(max_gamma=0.3, max_gain=0.2, max_noise=0.05),
)
# examples with three landmarks and with one
COUNTED = np.array([[True, True, True], [False, True, False]])


def make_batch(seed):
    rng = np.random.default_rng(seed)
    return Examples(
        volumes=rng.random((BATCH, SIDE, SIDE, SIDE), np.float32),
        points_vox=rng.uniform(2, SIDE - 3, (BATCH, LANDMARKS, 3)).astype(np.float32),
        present=COUNTED,
        visible=COUNTED,
        places=np.arange(BATCH, dtype=np.int32),
    )


def split(function, mesh):
    return lambda params, examples: function(params, parallel.split_depth(examples, mesh))


def build_step(devices, depth):
    return partial(
        train_step,
        sum_losses=split(DETECTOR.sum_losses, parallel.make_mesh(depth, devices)),
        augment=AUGMENT,
        optimizer=SGD,
    )


@cache
def run(count, depth):
    """Two steps on so many devices: [2, 2] losses and gradient norms, and the parameters."""
    devices = jax.local_devices()[:count]
    step = parallel.map_step(build_step(devices, depth), devices, depth)
    create = partial(create_state, init=DETECTOR.init, optimizer=SGD)
    state, found = jax.jit(create)(jax.random.key(1)), []
    for seed in range(2):
        state, metrics = step(state, jax.random.key(5), make_batch(seed))
        found.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return np.array(found), np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])


@pytest.mark.parametrize(
    "depth",
    [
        pytest.param(4, id="one group of four, slabs of one and a half at the lowest level"),
        pytest.param(2, id="two groups of two, an example each"),
    ],
)
def test_a_split_volume_gives_the_numbers_of_one_device(depth):
    one, params_one = run(1, 1)
    found, params = run(4, depth)
    np.testing.assert_allclose(found[:, 0], one[:, 0], rtol=1e-5)
    # sums over all voxels, in another order
    np.testing.assert_allclose(found[:, 1], one[:, 1], rtol=1e-4)
    assert np.linalg.norm(params - params_one) < 1e-5 * np.linalg.norm(params_one)


def compile_step(depth):
    """The program of a step for one example, on `depth` devices."""
    devices = jax.local_devices()[:depth]
    create = partial(create_state, init=DETECTOR.init, optimizer=SGD)
    return parallel.compile_step(
        build_step(devices, depth),
        jax.eval_shape(create, jax.random.key(1)),
        batch=1,
        shape=(LARGE,) * 3,
        landmarks=LANDMARKS,
        depth=depth,
        devices=devices,
    )


def test_memory_falls_with_the_devices_and_no_volume_is_gathered():
    programs = {depth: compile_step(depth) for depth in (1, 2, 4)}
    scratch = {d: p.memory_analysis().temp_size_in_bytes for d, p in programs.items()}
    assert scratch[2] < 0.7 * scratch[1] and scratch[4] < 0.45 * scratch[1], scratch
    text = programs[4].as_text()
    assert "collective-permute" in text  # the borders of the slabs
    gathered = [
        int(np.prod([int(n) for n in shape.split(",") if n]))
        for shape in re.findall(r"= \w+\[([\d,]*)\][^=]* all-gather", text)
    ]
    assert max(gathered, default=0) < LARGE**3 / 4, sorted(gathered)


def test_what_is_found_in_a_split_volume():
    trained = Trained(jax.jit(DETECTOR.init)(jax.random.key(1)))
    batch = make_batch(0)
    examples = Examples(
        volumes=batch.volumes,
        points_vox=batch.points_vox,
        shown=np.arange(BATCH, dtype=np.int32) % LANDMARKS,
    )
    found = []
    for depth in (1, 4):
        find = split(DETECTOR.find, parallel.make_mesh(depth, jax.local_devices()))
        found.append(parallel.map_batches(find, depth=depth)(trained, examples, batch=1))
    for name, one, other in zip(found[0]._fields, *found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4, err_msg=name)
