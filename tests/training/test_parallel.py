"""One device and four give the same numbers: loss, gradient norm and parameters."""

import re
import subprocess
import sys
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fetal_jax import augment
from fetal_jax.detectors.heatmap_detector import heatmap_detector
from fetal_jax.examples import Examples
from fetal_jax.losses import Target
from fetal_jax.models.resunet3d import MapOutputs, ResUNet3D
from fetal_jax.training import parallel
from fetal_jax.training.compiling import measure_memory
from fetal_jax.training.step import create_state, make_optimizer, train_step

SIDE, LANDMARKS = 8, 2


class ToyNetwork:
    """A map of its own for each landmark, bent by the image; compiles in a second."""

    widths = (1,)

    def init(self, key, x):
        field = jax.random.normal(key, (LANDMARKS, SIDE, SIDE, SIDE))
        return {
            "weights": jnp.linspace(-1.0, 2.0, 6).reshape(3, LANDMARKS, 1, 1, 1),
            "field": field,
        }

    def apply(self, params, x):
        a, b, c = params["weights"]
        x = x[..., 0][:, None]
        bent = jnp.tanh(a[None] * x) + b[None] * jnp.roll(x, 1, axis=3)
        return MapOutputs(bent + params["field"][None] * jnp.tanh(c[None] * x * x))


TOY = ToyNetwork()
NETWORK = ResUNet3D(LANDMARKS, (4,), groups=0, shortcut_size=1)
SETTINGS = {
    "loss": "emd",
    "factors": {"omega": 0.5},
    "target": Target("gaussian", 3.0, 2.0),
    "on_completed": True,
    "confidence_radius_mm": 4.0,
    "radii_mm": np.array([10.0]),
}
AUGMENT = augment.chain(
    augment.random_motion(max_degrees=20.0, max_scale=0.1, max_shift_vox=1.0),
    augment.random_intensity(max_gamma=0.3, max_gain=0.2, max_noise=0.05),
    augment.random_flip((1, 0)),
)
# examples with two landmarks, one, none and two
COUNTED = np.array([[True, True], [False, True], [False, False], [True, True]])


def make_batch(seed, present=COUNTED):
    rng = np.random.default_rng(seed)
    return Examples(
        volumes=rng.random((4, SIDE, SIDE, SIDE), np.float32),
        points_vox=rng.uniform(2.5, 4.5, (4, LANDMARKS, 3)).astype(np.float32),
        present=present,
        visible=present,
        places=np.arange(4, dtype=np.int32),
    )


def make_state(optimizer, model=TOY):
    init = heatmap_detector(model, **SETTINGS).init
    create = partial(create_state, init=init, optimizer=optimizer)
    return jax.jit(create)(jax.random.key(1))


@cache
def make_step(optimizer, n, augmented=False, model=TOY):
    """The step on n devices; kept, for compiling takes longest here."""
    step = partial(
        train_step,
        sum_losses=heatmap_detector(model, **SETTINGS).sum_losses,
        augment=AUGMENT if augmented else None,
        optimizer=optimizer,
    )
    return parallel.map_step(step, jax.local_devices()[:n])


def run(optimizer, n, start, **kwargs):
    """Three steps; the state, and [3, 2] losses and gradient norms."""
    step, state = make_step(optimizer, n, **kwargs), jax.tree.map(jnp.copy, start)
    found = []
    for seed in range(3):
        state, metrics = step(state, jax.random.key(5), make_batch(seed))
        found.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return jax.device_get(state), np.array(found)


def flatten(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


SGD = optax.sgd(0.1)
ADAM, _ = make_optimizer(
    lr=1e-2, steps=9, warmup_steps=1, clip_norm=1.0, weight_decay=0.1, decay="cosine"
)


@pytest.mark.parametrize(
    ("optimizer", "kwargs"),
    [
        pytest.param(SGD, {"augmented": True}, id="sgd, which shows the gradient's scale"),
        pytest.param(ADAM, {}, id="clipped adam"),
        pytest.param(SGD, {"model": NETWORK}, id="ResUNet3D"),
    ],
)
def test_one_device_equals_four(optimizer, kwargs):
    assert jax.local_device_count() == 4
    start = make_state(optimizer, kwargs.get("model", TOY))
    one, found_one = run(optimizer, 1, start, **kwargs)
    four, found_four = run(optimizer, 4, start, **kwargs)
    np.testing.assert_allclose(found_four, found_one, rtol=1e-5)
    assert int(one.step) == int(four.step) == 3
    a, b, before = flatten(one.params), flatten(four.params), flatten(start.params)
    moved = np.linalg.norm(a - before)
    assert moved > 1e-2
    assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(a)
    assert np.linalg.norm(a - b) < 1e-4 * moved


def test_a_step_is_compiled_once(caplog):
    """Also though its first state comes from another program than its second."""
    step, state = make_step.__wrapped__(SGD, 4), make_state(SGD)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        for seed in range(3):
            state, _ = step(state, jax.random.key(5), make_batch(seed))
    steps = [text for text in caplog.messages if re.match(r"Finished XLA.*_fun", text)]
    assert len(steps) == 1, caplog.messages


def test_a_mean_over_devices_would_give_another_gradient():
    """The first test could fail: devices with 2, 1, 0 and 2 landmarks must not count alike."""
    key, start = jax.random.key(5), make_state(SGD)
    before = flatten(jax.device_get(start.params))
    batch = make_batch(0)
    gradients, losses = [], []
    for i in range(4):  # each example alone, as a device of four sees it
        part = jax.tree.map(lambda array: array[i : i + 1], batch)  # noqa: B023
        state, metrics = make_step(SGD, 1)(jax.tree.map(jnp.copy, start), key, part)
        gradients.append((before - flatten(jax.device_get(state.params))) / 0.1)
        losses.append(float(metrics["loss"]))
    counts = COUNTED.sum(axis=1)
    _, found = make_step(SGD, 4)(start, key, batch)
    summed = np.average(gradients, axis=0, weights=counts)
    np.testing.assert_allclose(found["grad_norm"], np.linalg.norm(summed), rtol=1e-4)
    np.testing.assert_allclose(found["loss"], np.average(losses, weights=counts), rtol=1e-5)
    averaged = np.mean(gradients, axis=0)
    assert abs(np.linalg.norm(averaged) / float(found["grad_norm"]) - 1) > 0.02
    assert abs(np.mean(losses) / float(found["loss"]) - 1) > 0.1


def test_nothing_counted_changes_nothing():
    before = flatten(jax.device_get(make_state(SGD).params))
    batch = make_batch(0, np.zeros((4, 2), bool))
    state, found = make_step(SGD, 4)(make_state(SGD), jax.random.key(0), batch)
    assert float(found["loss"]) == float(found["grad_norm"]) == 0.0
    np.testing.assert_array_equal(flatten(jax.device_get(state.params)), before)


def test_an_example_does_not_depend_on_the_others():
    """What is drawn for it comes from the key, the step and its place."""
    found = []
    for seed in (0, 1):
        batch = make_batch(seed, np.arange(4)[:, None] == [1, 1])
        batch.volumes[1], batch.points_vox[1] = (
            make_batch(0).volumes[1],
            make_batch(0).points_vox[1],
        )
        found.append(make_step(SGD, 4, True)(make_state(SGD), jax.random.key(5), batch)[1])
    assert float(found[0]["loss"]) == float(found[1]["loss"]) > 0
    _, other = make_step(SGD, 4, True)(make_state(SGD), jax.random.key(6), batch)
    assert float(other["loss"]) != float(found[0]["loss"])


@pytest.mark.parametrize("count", [1, 3, 4, 8, 9, 13])
@pytest.mark.parametrize("batch", [1, 4, 11])
def test_map_batches_takes_any_number(count, batch):
    examples = np.random.default_rng(count).random((count, 3, 2), np.float32)
    seen = []

    def function(params, x):
        seen.append(x.shape)
        return {"sum": params * jnp.sum(x, axis=(1, 2)), "same": x}

    found = parallel.map_batches(function)(np.float32(2.0), examples, batch=batch)
    np.testing.assert_allclose(found["sum"], 2 * examples.sum(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(found["same"], examples)
    most = -(-count // 4)  # a device needs no more than its share
    assert seen == [(min(max(1, batch // 4), most), 3, 2)]  # traced once


def test_map_batches_on_one_device():
    examples = np.arange(5, dtype=np.float32)
    double = parallel.map_batches(lambda p, x: p * x, jax.local_devices()[:1])
    np.testing.assert_array_equal(double(np.float32(2), examples, batch=2), 2 * examples)


def test_split_batch_keeps_the_order():
    found = parallel.split_batch({"x": np.arange(12).reshape(6, 2)}, 3)
    np.testing.assert_array_equal(found["x"], np.arange(12).reshape(3, 2, 2))


def test_memory_of_a_step_grows_with_the_batch():
    step = partial(
        train_step,
        sum_losses=heatmap_detector(TOY, **SETTINGS).sum_losses,
        augment=None,
        optimizer=SGD,
    )
    state = jax.eval_shape(lambda: make_state(SGD))
    small, large = (
        measure_memory(
            parallel.compile_step(step, state, batch=batch, shape=(SIDE,) * 3, landmarks=LANDMARKS)
        )
        for batch in (4, 16)
    )
    assert 0 < small < large


def test_importing_the_package_starts_no_device():
    """Else jax.distributed comes too late, and a forked process hangs in its first compilation."""
    code = """if True:
        import importlib, pkgutil
        import fetal_jax
        from jax._src import xla_bridge
        for module in pkgutil.walk_packages(fetal_jax.__path__, "fetal_jax."):
            importlib.import_module(module.name)
            assert not xla_bridge.backends_are_initialized(), module.name
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
