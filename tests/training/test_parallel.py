"""One device and four give the same numbers, also where a volume is split along its depth."""

import re
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_detector as toy

from fetal_jax import augment
from fetal_jax.detectors.heatmap_detector import heatmap_detector
from fetal_jax.examples import Examples
from fetal_jax.losses import Target
from fetal_jax.models import conv3d
from fetal_jax.models.resunet3d import Conv3D, MapOutputs, Norm, ResUNet3D
from fetal_jax.training import compiling, parallel
from fetal_jax.training.compiling import measure_memory
from fetal_jax.training.step import create_state, train_step


def train_toy(step, optimizer):
    """Three steps; the state, and [3, 4] losses and gradient norms."""
    state, found = toy.make_state(optimizer), []
    for seed in range(3):
        state, measured = step(state, jax.random.key(5), toy.make_examples(seed))
        found.append([float(value) for _, value in sorted(measured.items())])
    return jax.device_get(state), np.array(found)


def run_toy(optimizer, devices, augmented):
    return train_toy(toy.make_step(optimizer, devices, augmented), optimizer)


@pytest.mark.parametrize(
    ("optimizer", "augmented"),
    [
        pytest.param(toy.SGD, True, id="sgd, which shows the gradient's scale"),
        pytest.param(toy.ADAM, False, id="clipped adam"),
    ],
)
def test_one_device_equals_four(optimizer, augmented):
    assert jax.local_device_count() == 4
    one, found_one = run_toy(optimizer, 1, augmented)
    four, found_four = run_toy(optimizer, 4, augmented)
    np.testing.assert_allclose(found_four, found_one, rtol=1e-5)
    assert int(one.step) == int(four.step) == 3
    before = toy.flatten(toy.make_state(optimizer).params)
    a, b = toy.flatten(one.params), toy.flatten(four.params)
    moved = np.linalg.norm(a - before)
    assert moved > 1e-2
    assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(a)
    assert np.linalg.norm(a - b) < 1e-4 * moved


def count_landmarks(state, key, examples):
    """Stands for a step: how many landmarks the whole batch has."""
    counted = parallel.psum(jnp.sum(examples.present))
    measured = {
        "counted": counted,
        "drawn": jax.random.bits(key),
        "brightness": parallel.psum(jnp.sum(examples.volumes)),
    }
    return state + counted, measured


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_step_sees_all_devices_and_is_compiled_once(monkeypatch, depth):
    """Also though its first state comes from another program than its second."""
    programs, compile_faster = [], compiling.compile_faster
    monkeypatch.setattr(
        compiling,
        "compile_faster",
        lambda *a, **k: programs.append(1) or compile_faster(*a, **k),
    )
    step = parallel.map_step(count_landmarks, depth=depth)
    state = jnp.int32(0)
    for seed in range(3):
        state, measured = step(state, jax.random.key(seed), toy.make_examples(seed))
        assert int(measured["counted"]) == 7
        assert int(measured["drawn"]) == int(jax.random.bits(jax.random.key(seed)))
    assert int(state) == 21 and len(programs) == 1


# ---- any number of examples ----


def add_up(params, x):
    return {"sum": params * jnp.sum(x, axis=(1, 2)), "same": x}


add_up_many = parallel.map_batches(add_up)


@pytest.mark.parametrize("count", [1, 3, 4, 8, 9, 13])
@pytest.mark.parametrize("batch", [1, 4, 11])
def test_map_batches_takes_any_number(count, batch):
    examples = np.random.default_rng(count).random((count, 3, 2), np.float32)
    found = add_up_many(np.float32(2.0), examples, batch=batch)
    np.testing.assert_allclose(found["sum"], 2 * examples.sum(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(found["same"], examples)


@pytest.mark.parametrize(
    ("count", "batch", "each"),
    [
        pytest.param(13, 11, 2, id="two for each device at a time"),
        pytest.param(13, 1, 1, id="never less than one"),
        pytest.param(3, 11, 1, id="a device needs no more than its share"),
    ],
)
def test_map_batches_runs_one_program(count, batch, each):
    seen = []

    def look(params, x):
        seen.append(x.shape)
        return x

    parallel.map_batches(look)(np.float32(0), np.zeros((count, 3), np.float32), batch=batch)
    assert seen == [(each, 3)]  # traced once


def test_map_batches_on_one_device():
    examples = np.arange(5, dtype=np.float32)
    double = parallel.map_batches(lambda p, x: p * x, jax.local_devices()[:1])
    np.testing.assert_array_equal(double(np.float32(2), examples, batch=2), 2 * examples)


def test_split_batch_keeps_the_order():
    found = parallel.split_batch({"x": np.arange(12).reshape(6, 2)}, 3)
    np.testing.assert_array_equal(found["x"], np.arange(12).reshape(3, 2, 2))


def test_memory_of_a_step_grows_with_the_batch():
    """By the batch's own size at least: volumes of 8³ in float32."""
    small, large = (
        measure_memory(
            parallel.compile_step(
                count_landmarks, jnp.int32(0), batch=batch, shape=(8, 8, 8), landmarks=2
            )
        )
        for batch in (4, 16)
    )
    assert large - small >= (16 - 4) / 4 * 8**3 * 4


# ---- a volume split along its depth ----


def split(function, mesh):
    return lambda params, examples: function(params, parallel.split_depth(examples, mesh))


def test_two_groups_of_two_give_the_numbers_of_one_device():
    """The toy's volumes in halves, two of the four examples in each group."""
    mesh = parallel.make_mesh(depth=2)
    step = toy.build_step(toy.SGD, augmented=True, sum_losses=split(toy.sum_losses, mesh))
    state, found = train_toy(parallel.map_step(step, depth=2), toy.SGD)
    one, found_one = run_toy(toy.SGD, 1, augmented=True)
    np.testing.assert_allclose(found, found_one, rtol=1e-5)
    np.testing.assert_allclose(toy.flatten(state), toy.flatten(one), rtol=1e-4, atol=1e-6)


SIDE, LANDMARKS, BATCH = 12, 3, 2
LARGE = 32  # where the maps, and not the parameters, are what takes memory


class TwoLevels(nn.Module):
    """Each part of the network once: what a slab has to ask of its neighbours."""

    widths = (4, 6)

    @nn.compact
    def __call__(self, x):
        fine = nn.leaky_relu(Norm(0)(Conv3D(4)(x)))
        coarse = Conv3D(6)(conv3d.max_pool(fine))
        kernel = self.param("up", nn.initializers.normal(0.3), (6, 8, 4))
        y = Norm(1)(fine + conv3d.upsample(coarse, kernel))
        return MapOutputs(jnp.moveaxis(Conv3D(LANDMARKS, 1)(y), -1, 1))


def build_detector(model):
    return heatmap_detector(
        model,
        loss="emd",
        factors={"omega": 0.5},
        target=Target("gaussian", width_mm=3.0, spacing_mm=2.0),
        on_completed=True,
        confidence_radius_mm=4.0,
        radii_mm=np.linspace(1.0, 40.0, 20, dtype=np.float32),
        expected_vox=np.array([[3.0, 4.0, 5.0], [9.0, 2.0, 1.0], [11.0, 10.0, 3.0]]),
    )


DETECTOR = build_detector(TwoLevels())
# examples with three landmarks and with one
PRESENT = np.array([[True, True, True], [False, True, False]])


def make_examples(seed):
    rng = np.random.default_rng(seed)
    return Examples(
        volumes=rng.random((BATCH, SIDE, SIDE, SIDE), np.float32),
        points_vox=rng.uniform(2, SIDE - 3, (BATCH, LANDMARKS, 3)).astype(np.float32),
        present=PRESENT,
        visible=PRESENT,
        places=np.arange(BATCH, dtype=np.int32),
    )


def build_step(depth, detector=DETECTOR):
    devices = jax.local_devices()[:depth]
    step = partial(
        train_step,
        sum_losses=split(detector.sum_losses, parallel.make_mesh(depth, devices)),
        augment=augment.chain(toy.random_shift),
        optimizer=toy.SGD,
    )
    return step, devices


@cache
def init_params():
    # this key's numbers compile in a tenth of the time
    return jax.jit(DETECTOR.init)(jax.random.key(1, impl="rbg"))


def run(depth):
    """Two steps on so many devices: [2, 2] losses and gradient norms, and the parameters."""
    mapped, found = parallel.map_step(*build_step(depth), depth), []
    state = create_state(
        jax.random.key(1),
        init=lambda key: jax.tree.map(jnp.copy, init_params()),
        optimizer=toy.SGD,
    )
    for seed in range(2):
        state, measured = mapped(state, jax.random.key(5), make_examples(seed))
        found.append([float(measured["loss"]), float(measured["grad_norm"])])
    return np.array(found), toy.flatten(state.params)


def test_a_split_volume_gives_the_numbers_of_one_device():
    """In slabs of three, and of one and a half at the lower level."""
    (one, params_one), (found, params) = run(1), run(4)
    np.testing.assert_allclose(found[:, 0], one[:, 0], rtol=1e-5)
    # sums over all voxels, in another order
    np.testing.assert_allclose(found[:, 1], one[:, 1], rtol=1e-4)
    assert np.linalg.norm(params - params_one) < 1e-5 * np.linalg.norm(params_one)


def compile_step(depth):
    """The program of a step for one example, on `depth` devices."""
    detector = build_detector(ResUNet3D(LANDMARKS, (4,), groups=0, shortcut_size=1))
    step, devices = build_step(depth, detector)
    create = partial(create_state, init=detector.init, optimizer=toy.SGD)
    return parallel.compile_step(
        step,
        jax.eval_shape(create, jax.random.key(1)),
        batch=1,
        shape=(LARGE,) * 3,
        landmarks=LANDMARKS,
        depth=depth,
        devices=devices,
    )


def test_memory_falls_with_the_devices_and_no_volume_is_gathered():
    """One example a group: on a CPU alone, whose convolution folds depth and examples, more do."""
    whole, parts = compile_step(1), compile_step(4)
    scratch = [program.memory_analysis().temp_size_in_bytes for program in (whole, parts)]
    assert scratch[1] < 0.45 * scratch[0], scratch
    text = parts.as_text()
    assert "collective-permute" in text  # the borders of the slabs
    gathered = [
        int(np.prod([int(n) for n in shape.split(",") if n]))
        for shape in re.findall(r"= \w+\[([\d,]*)\][^=]* all-gather", text)
    ]
    assert max(gathered, default=0) < LARGE**3 / 4, sorted(gathered)


def test_what_is_found_in_a_split_volume():
    examples = Examples(
        volumes=make_examples(0).volumes,
        points_vox=make_examples(0).points_vox,
        shown=np.arange(BATCH, dtype=np.int32) % LANDMARKS,
    )
    found = []
    for depth in (1, 4):
        find = split(DETECTOR.find, parallel.make_mesh(depth))
        mapped = parallel.map_batches(find, depth=depth)
        found.append(mapped(init_params(), examples, batch=1))
    for name, one, other in zip(found[0]._fields, *found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4, err_msg=name)
