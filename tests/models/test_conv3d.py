"""Convolution, pooling and upsampling against scipy and explicit loops."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fetal_jax.models import conv3d as ops

FORMS = {"conv3d": ops.conv3d, "winograd": ops.conv3d_winograd, "native": ops.conv3d_native}
JITTED = {name: jax.jit(form) for name, form in FORMS.items()}
# x [B, D, H, W, C], kernel [K, K, K, C, F]
CASES = {
    "even depth": ((2, 6, 7, 3, 2), (3, 3, 3, 2, 3)),
    "odd depth": ((2, 5, 4, 7, 2), (3, 3, 3, 2, 2)),
    "one plane": ((1, 1, 3, 5, 1), (3, 3, 3, 1, 2)),
}


def random_case(x_shape, kernel_shape):
    rng = np.random.default_rng(0)
    shapes = (x_shape, kernel_shape, (*x_shape[:-1], kernel_shape[-1]))
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def scipy_conv3d(x, kernel):
    """Zero-padded correlation, in float64."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    out = np.zeros((*x.shape[:-1], kernel.shape[-1]))
    for b, c, f in np.ndindex(x.shape[0], *kernel.shape[3:]):
        out[b, ..., f] += ndimage.correlate(x[b, ..., c], kernel[..., c, f], mode="constant")
    return out


def numpy_gradients(x, kernel, g):
    """Of Σ g · conv(x, kernel), written tap by tap: each tap is a shifted matrix product."""
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    widths = [(0, 0)] + [(pad, pad)] * 3 + [(0, 0)]
    padded = np.pad(x.astype(np.float64), widths)
    grad_x, grad_kernel = np.zeros_like(padded), np.zeros(kernel.shape)
    for i, j, k in np.ndindex(size, size, size):
        window = np.s_[:, i : i + x.shape[1], j : j + x.shape[2], k : k + x.shape[3]]
        grad_x[window] += g @ kernel[i, j, k].T
        grad_kernel[i, j, k] = np.einsum("bdhwc,bdhwf->cf", padded[window], g)
    inner = tuple(slice(pad, pad + n) for n in x.shape[1:4])
    return grad_x[:, *inner], grad_kernel


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_values_and_both_gradients(case, form):
    x, kernel, g = random_case(*case)
    value, pull_back = jax.vjp(JITTED[form], x, kernel)
    np.testing.assert_allclose(value, scipy_conv3d(x, kernel), rtol=1e-5, atol=1e-4)
    for found, expected in zip(pull_back(g), numpy_gradients(x, kernel, g), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-4)


def test_plain_is_jitted():
    x, kernel, _ = random_case(*CASES["odd depth"])
    np.testing.assert_allclose(ops.conv3d(x, kernel), scipy_conv3d(x, kernel), atol=1e-4)


def test_own_gradient_is_that_of_the_native_form():
    x, kernel, g = random_case(*CASES["odd depth"])

    def weighted(form):
        return jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(form(x, k)) * g), argnums=(0, 1)))

    own, autodiff = weighted(ops.conv3d)(x, kernel), weighted(ops.conv3d_native)(x, kernel)
    for found, expected in zip(own, autodiff, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_kernel_of_one_voxel_is_a_matrix_product():
    x, kernel, _ = random_case((2, 3, 4, 5, 3), (1, 1, 1, 3, 2))
    expected = np.einsum("bdhwc,cf->bdhwf", x, kernel[0, 0, 0])
    np.testing.assert_allclose(JITTED["conv3d"](x, kernel), expected, rtol=1e-5, atol=1e-5)


def test_under_vmap():
    x, kernel, g = random_case(*CASES["odd depth"])
    xs, kernels = np.stack([x, 2 * x[::-1]]), np.stack([kernel, -kernel[::-1]])
    expected = [scipy_conv3d(a, k) for a, k in zip(xs, kernels, strict=True)]

    @jax.jit
    def both(xs, kernels):
        values, pull_back = jax.vjp(jax.vmap(ops.conv3d), xs, kernels)
        return values, pull_back(jnp.stack([g, g]))

    values, gradients = both(xs, kernels)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-4)
    for i in range(2):
        expected = numpy_gradients(xs[i], kernels[i], g)
        for found, one in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(found[i], one, rtol=1e-5, atol=3e-4)


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_stays_bfloat16(form):
    x, kernel, g = (jnp.asarray(a, jnp.bfloat16) for a in random_case(*CASES["odd depth"]))
    value, pull_back = jax.vjp(JITTED[form], x, kernel)
    assert [a.dtype for a in (value, *pull_back(g))] == [jnp.bfloat16] * 3
    expected = scipy_conv3d(np.asarray(x, np.float32), np.asarray(kernel, np.float32))
    # 8 bits, and the taps round each partial sum
    np.testing.assert_allclose(value.astype(jnp.float32), expected, atol=0.03 * expected.std() * 3)


def convolution_ranks(platform, function):
    """Ranks of the operands of every convolution in the program for a platform."""
    x, kernel, _ = random_case(*CASES["odd depth"])
    lowered = jax.jit(function).trace(x, kernel).lower(lowering_platforms=(platform,))
    lines = [line for line in lowered.as_text().splitlines() if "stablehlo.convolution" in line]
    operands = [re.search(r": \(tensor<([^>]*)>, ", line).group(1) for line in lines]
    return [operand.count("x") for operand in operands]


@pytest.mark.parametrize(
    ("platform", "rank"), [("cpu", 4), ("cuda", 5), ("tpu", 5)], ids=["cpu", "cuda", "tpu"]
)
def test_each_platform_gets_its_form(platform, rank):
    def gradient(x, kernel):
        return jax.grad(lambda x, k: jnp.sum(jnp.square(ops.conv3d(x, k))), argnums=(0, 1))(
            x, kernel
        )

    for function in (ops.conv3d, gradient):
        ranks = convolution_ranks(platform, function)
        assert ranks and set(ranks) == {rank}


def test_join_blocks_places_every_voxel():
    shape = (2, 2, 3, 4)
    x = np.random.default_rng(0).normal(size=(*shape, 8, 2)).astype(np.float32)
    expected = np.zeros((2, 4, 6, 8, 2), np.float32)
    for b, d, h, w in np.ndindex(*shape):
        for offset in range(8):
            i, j, k = offset // 4, offset // 2 % 2, offset % 2
            expected[b, 2 * d + i, 2 * h + j, 2 * w + k] = x[b, d, h, w, offset]
    for function in (ops.join_blocks, jax.jit(ops.join_blocks)):
        np.testing.assert_array_equal(function(x), expected)


def test_max_pool():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 8, 3)).astype(np.float32)
    expected = np.zeros((2, 2, 3, 4, 3), np.float32)
    for d, h, w in np.ndindex(2, 3, 4):
        block = x[:, 2 * d : 2 * d + 2, 2 * h : 2 * h + 2, 2 * w : 2 * w + 2]
        expected[:, d, h, w] = block.max(axis=(1, 2, 3))
    for function in (ops.max_pool, jax.jit(ops.max_pool)):
        np.testing.assert_array_equal(function(x), expected)


def test_upsample_is_a_transposed_convolution():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
    kernel = rng.normal(size=(5, 8, 3)).astype(np.float32)
    # every voxel paints a 2x2x2 block; with stride 2 no two blocks meet
    expected = np.zeros((2, 4, 6, 8, 3))
    for offset in range(8):
        i, j, k = offset // 4, offset // 2 % 2, offset % 2
        expected[:, i::2, j::2, k::2] = x.astype(np.float64) @ kernel[:, offset]
    for function in (ops.upsample, jax.jit(ops.upsample)):
        np.testing.assert_allclose(function(x, kernel), expected, rtol=1e-5, atol=1e-5)
    by_xla = jax.lax.conv_transpose(
        x,
        kernel.reshape(5, 2, 2, 2, 3).transpose(1, 2, 3, 0, 4)[::-1, ::-1, ::-1],
        (2, 2, 2),
        "VALID",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
    np.testing.assert_allclose(by_xla, expected, rtol=1e-5, atol=1e-5)


X = np.ones((1, 3, 4, 5, 2))
MISUSES = {
    "no batch": (lambda: ops.conv3d(X[0], np.ones((3, 3, 3, 2, 1))), r"got \(3, 4, 5, 2\)"),
    "other channels": (
        lambda: ops.conv3d(X, np.ones((3, 3, 3, 4, 1))),
        r"got \(1, 3, 4, 5, 2\), \(3, 3, 3, 4, 1\)",
    ),
    "another kernel": (
        lambda: ops.conv3d(X, np.ones((2, 3, 3, 2, 1))),
        r"1x1x1 or 3x3x3, got \(2, 3, 3\)",
    ),
    "pool of odd sides": (lambda: ops.max_pool(X), r"even sizes, got \(3, 4, 5\)"),
    "blocks of four": (
        lambda: ops.join_blocks(np.ones((1, 3, 4, 5, 4, 2))),
        r"\[B, D, H, W, 8, C\], got \(1, 3, 4, 5, 4, 2\)",
    ),
    "upsampling of other channels": (
        lambda: ops.upsample(X, np.ones((3, 8, 1))),
        r"kernel \[C, 8, F\], got \(1, 3, 4, 5, 2\) and \(3, 8, 1\)",
    ),
}


@pytest.mark.parametrize("case", MISUSES.values(), ids=MISUSES.keys())
def test_misuse(case):
    call, message = case
    with pytest.raises(ValueError, match=message):
        call()
