"""On a GPU or TPU the numbers are the CPU's: convolutions, the loss, a whole step.

Skipped where JAX finds none. FETAL_JAX_REHEARSAL=1 runs them on the CPU all the same, which shows
that they run and no more.
"""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import emd
from fetal_jax import losses
from fetal_jax.detectors.from_config import build_detector
from fetal_jax.examples import Examples
from fetal_jax.models import conv3d
from fetal_jax.training import parallel
from fetal_jax.training.from_config import build_optimizer, build_step
from fetal_jax.training.step import create_state

pytestmark = [
    pytest.mark.accelerator,
    pytest.mark.skipif(
        jax.default_backend() == "cpu" and not os.environ.get("FETAL_JAX_REHEARSAL"),
        reason="JAX finds no GPU or TPU",
    ),
]
LANDMARKS, SIDE = 3, 16


@pytest.fixture(autouse=True)
def exact_products():
    """Matrix products of float32 as the CPU's; an accelerator's default takes fewer digits."""
    with jax.default_matmul_precision("highest"):
        yield


def run_on_both(function, *args):
    """Trees of numpy arrays: function(*args) on the CPU, and where JAX runs by default."""
    devices = jax.local_devices(backend="cpu")[0], jax.local_devices()[0]
    return [jax.device_get(jax.jit(function)(*jax.device_put(args, device))) for device in devices]


def assert_near(expected, found, share):
    """Each leaf within a share of the largest number of the expected one."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(b, a, atol=share * np.abs(a).max()),
        expected,
        found,
    )


@pytest.mark.parametrize("channels", [(1, 8), (8, 16), (64, 32)])
def test_convolution_and_its_gradients(channels):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (1, 8, 12, 16, channels[0]))
    kernel = jax.random.normal(keys[1], (3, 3, 3, *channels))
    g = jax.random.normal(keys[2], (*x.shape[:-1], channels[1]))

    def both(x, kernel, g):
        y, pull_back = jax.vjp(conv3d.conv3d, x, kernel)
        return y, pull_back(g)

    assert_near(*run_on_both(both, x, kernel, g), share=1e-4)


@pytest.mark.parametrize("name", ["emd", "ce"])
def test_loss_and_its_gradient(name):
    config = emd.get_config()
    logits = jax.random.normal(jax.random.key(0), (1, LANDMARKS, *(SIDE,) * 3))
    points = jax.random.uniform(jax.random.key(1), (1, LANDMARKS, 3), minval=4.0, maxval=11.0)
    settings = config.loss.to_dict() | {"name": name, "kind": "gaussian", "width_mm": 3.0}

    def measure(logits, points):
        return jnp.mean(losses.compute_losses(logits, points, **settings, spacing_mm=2.0))

    assert_near(*run_on_both(jax.value_and_grad(measure), logits, points), share=1e-4)


def take_step(device, dtype, remat=False):
    """Metrics of one step of a small network on one device."""
    config = emd.get_config()
    config.grid.side, config.grid.spacing_mm = SIDE, 2.0
    config.model.widths, config.model.dtype, config.model.remat = (8, 16), dtype, remat
    config.augment.on = False
    detector = build_detector(config, LANDMARKS)
    optimizer, _ = build_optimizer(config, 10)
    create = partial(create_state, init=detector.init, optimizer=optimizer)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        state = jax.device_get(jax.jit(create)(jax.random.key(0)))
    rng = np.random.default_rng(0)
    there = np.ones((1, LANDMARKS), bool)
    examples = Examples(
        rng.random((1, SIDE, SIDE, SIDE), np.float32),
        points_vox=rng.uniform(4, 11, (1, LANDMARKS, 3)).astype(np.float32),
        present=there,
        visible=there,
        places=np.zeros(1, np.int32),
    )
    step = build_step(config, detector, optimizer, None, devices=[device])
    _, metrics = parallel.map_step(step, [device])(state, jax.random.key(1), examples)
    return {name: float(metrics[name]) for name in ("loss", "grad_norm")}


@pytest.fixture(scope="module")
def expected_step():
    with jax.default_matmul_precision("highest"):
        return take_step(jax.local_devices(backend="cpu")[0], "float32")


@pytest.mark.parametrize(
    ("dtype", "remat", "share"),
    [("float32", False, 1e-3), ("bfloat16", False, 0.03), ("bfloat16", True, 0.03)],
)
def test_step(expected_step, dtype, remat, share):
    found = take_step(jax.local_devices()[0], dtype, remat)
    assert found == pytest.approx(expected_step, rel=share)
