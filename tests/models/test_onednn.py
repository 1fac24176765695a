"""bfloat16 by oneDNN against float32 in explicit form, where this machine has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.models import conv3d as ops
from fetal_jax.models import onednn
from fetal_jax.models.resunet3d import ResUNet3D
from fetal_jax.training.compiling import compile_faster

pytestmark = pytest.mark.skipif(
    not onednn.is_there(), reason="needs x86-64 with avx512_bf16, and a jaxlib that was tried"
)
# [B, D, H, W, C], F: odd and even channels, sides that few planes fill, and one plane
SHAPES = [
    ((2, 6, 7, 3, 2), 3),
    ((2, 5, 4, 7, 3), 2),
    ((1, 4, 33, 70, 8), 16),
    ((1, 1, 3, 5, 1), 2),
    ((2, 1, 3, 5, 4), 1),
    ((1, 6, 1, 1, 1), 1),
]
TINY = ResUNet3D(landmarks=3, widths=(4, 8), dtype=jnp.bfloat16)


def pull(form):
    def run(x, kernel, g):
        value, pull_back = jax.vjp(form, x, kernel)
        return value, *pull_back(g)

    return jax.jit(run)


@pytest.mark.parametrize(("shape", "features"), SHAPES, ids=str)
def test_values_and_both_gradients(shape, features):
    rng = np.random.default_rng(0)
    shapes = (shape, (3, 3, 3, shape[-1], features), (*shape[:-1], features))
    args = [jnp.asarray(rng.normal(size=s), jnp.bfloat16) for s in shapes]
    found = compile_faster(pull(ops.conv3d), *args)(*args)
    expected = pull(ops.conv3d_native)(*(a.astype(jnp.float32) for a in args))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == jnp.bfloat16
        # sums are exact to float32, and the result is rounded to 8 bits
        scale = float(jnp.abs(other).max())
        np.testing.assert_allclose(one.astype(jnp.float32), other, atol=2**-8 * scale)


@pytest.mark.parametrize(
    ("shape", "features"), [((2, 6, 7, 3, 2), 3), ((1, 1, 1, 1, 5), 1)], ids=str
)
def test_a_matrix_product_and_both_gradients(shape, features):
    rng = np.random.default_rng(0)
    shapes = (shape, (shape[-1], features), (*shape[:-1], features))
    args = [jnp.asarray(rng.normal(size=s), jnp.bfloat16) for s in shapes]
    run = pull(ops.multiply)
    with onednn.allowed(True):
        assert onednn.is_called(run.lower(*args))
    found = compile_faster(run, *args)(*args)
    expected = pull(jnp.matmul)(*(a.astype(jnp.float32) for a in args))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == jnp.bfloat16
        scale = float(jnp.abs(other).max())
        np.testing.assert_allclose(one.astype(jnp.float32), other, atol=2**-8 * scale)


@pytest.mark.parametrize(
    "shape",
    [(2, 96, 3), (1, 5, 1), (1, 1, 4), (3, 4096, 16), (1, 7, 129), (2, 16, 1), (1, 2**17, 2)],
    ids=str,
)
def test_sums_over_voxels_and_their_gradient(shape):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(1, 1, shape), jnp.bfloat16)
    weights = [jnp.asarray(rng.normal(size=(shape[0], shape[2])), jnp.float32) for _ in range(2)]

    def weigh(x, *weights):
        sums = ops.sum_voxels(x)
        return sum(jnp.vdot(s, w) for s, w in zip(sums, weights, strict=True)), sums

    run = jax.jit(jax.value_and_grad(weigh, has_aux=True))
    with onednn.allowed(True):
        assert onednn.is_called(run.lower(x, *weights))
    (_, sums), gradient = compile_faster(run, x, *weights)(x, *weights)
    exact = np.asarray(x, np.float64)
    for found, expected in zip(sums, (exact.sum(1), (exact**2).sum(1)), strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, atol=1e-5 * (exact**2).sum(1).max())
    expected = weights[0][:, None] + 2 * exact * weights[1][:, None]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(gradient.astype(jnp.float32), expected, atol=2**-8 * scale)


def network_gradient(model):
    def measure(params, volumes):
        return jnp.sum(jnp.sin(model.apply(params, volumes).logits))

    return jax.jit(jax.grad(measure))


@pytest.fixture(scope="module")
def network():
    volumes = jnp.asarray(np.random.default_rng(1).random((1, 8, 8, 8, 1)), jnp.float32)
    return jax.jit(TINY.init)(jax.random.key(0), volumes), volumes


def test_a_network_learns_as_in_float32(network):
    """Each parameter's gradient points where float32's does."""
    exact = network_gradient(TINY.clone(dtype=jnp.float32))(*network)
    found = compile_faster(network_gradient(TINY), *network)(*network)
    for path in dict(jax.tree.leaves_with_path(exact)):
        one, other = (np.ravel(dict(jax.tree.leaves_with_path(g))[path]) for g in (found, exact))
        lengths = np.linalg.norm(one), np.linalg.norm(other)
        assert one @ other / np.prod(lengths) > 0.98, jax.tree_util.keystr(path)
        assert lengths[0] == pytest.approx(lengths[1], rel=0.1), jax.tree_util.keystr(path)


def test_only_a_program_that_may_calls_it(network):
    def is_called(may):
        with onednn.allowed(may):
            return onednn.is_called(network_gradient(TINY).lower(*network))

    assert [is_called(False), is_called(True), is_called(False)] == [False, True, False]


def test_such_a_program_is_not_kept_on_disk(network, monkeypatch):
    """jaxlib fails while it writes one."""
    written = []
    monkeypatch.setattr(
        jax._src.compilation_cache, "put_executable_and_time", lambda name, *_: written.append(name)
    )
    compile_faster(jax.jit(lambda p, v: TINY.apply(p, v).logits + 1.5), *network)
    assert not written
    compile_faster(jax.jit(lambda x: jnp.sort(x) + 1.5), network[1])
    assert len(written) <= 1  # whether it takes long enough is JAX's affair
    assert jax.config.jax_persistent_cache_min_compile_time_secs < 1
