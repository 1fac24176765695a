"""Each translated operation gives in onnxruntime what JAX gives, for sizes known only then."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax
from onnx_files import run_onnx

from fetal_jax.models import conv3d
from fetal_jax.to_onnx.convert import convert

RNG = np.random.default_rng(0)
X = np.float32(RNG.normal(size=(4, 5, 3)))
TIES = np.float32([3, 1, 3, 1, 2, 1])
WHOLE = np.int32([-7, -3, 0, 3, 7, 9])
WEIGHTS = np.float32(RNG.normal(size=(3, 5, 2)))
KERNEL = np.float32(RNG.normal(size=(3, 3, 3, 1, 2)))


def make_file(function, *given, symbols=""):
    """The file of a function of one or two arrays; with symbols the sizes of the first."""
    shapes = [array.shape for array in given]
    if symbols:
        shapes[0] = jax.export.symbolic_shape(symbols)
    inputs = {
        name: jax.ShapeDtypeStruct(shape, array.dtype)
        for name, shape, array in zip("ab", shapes, given, strict=False)
    }
    return convert(
        lambda *arrays: {"out": function(*arrays)},
        inputs,
        title="test",
        producer="tests",
        about={"why": "a test"},
    )


def compare(function, *given, symbols="", **near):
    found = run_onnx(
        make_file(function, *given, symbols=symbols), dict(zip("ab", given, strict=False))
    )
    expected = np.asarray(jax.jit(function)(*given))
    assert found["out"].dtype == expected.dtype
    np.testing.assert_allclose(found["out"], expected, **{"rtol": 1e-5, "atol": 1e-6} | near)


def sum_in_a_loop(x):
    def add(carried, row):
        return carried + row, carried * row

    total, each = lax.scan(add, jnp.zeros(x.shape[1:]), x)
    return total[None] + each


def double_until_large(x):
    return lax.while_loop(lambda v: jnp.max(v) < 100.0, lambda v: 2.0 * v, x)


def count_to(x):
    """A loop whose end depends on data, in which another one runs."""

    def step(i, total):
        return lax.fori_loop(0, 3, lambda j, t: t + i.astype(jnp.float32) * jnp.sin(1.0), total)

    return lax.fori_loop(-2, jnp.argmax(x) + 2, step, jnp.float32(0.5))


def look_round(x):
    """The window of a batched dynamic slice that would begin outside."""
    starts = jnp.array([[0, 0], [9, 1], [-9, 2], [2, 0]])

    def one(plane, start):
        start = jnp.where(start < 0, start - 20, start)
        return lax.dynamic_slice(plane, tuple(start), (2, 2))

    return jax.vmap(one)(x, starts)


PLAIN = {
    "arithmetic": (lambda x: (x + 2 * x * x - x / 3) ** 3, X),
    "functions": (lambda x: jnp.tanh(x) + jnp.exp(-jnp.abs(x)) * jnp.sign(x), X),
    "logarithms": (lambda x: jnp.log(x * x + 1) + jnp.log1p(x * x) + lax.rsqrt(x * x + 1), X),
    "rounding": (lambda x: jnp.round(2 * x) + jnp.floor(x) - jnp.ceil(x / 2), X),
    "halves go to even numbers": (jnp.round, np.float32([0.5, 1.5, 2.5, -0.5])),
    "sigmoid": (jax.nn.sigmoid, X),
    "leaky relu": (jax.nn.leaky_relu, X),
    "softmax": (lambda x: jax.nn.softmax(x, axis=1), X),
    "remainders of negative numbers": (lambda x: x % 4 + 10 * lax.rem(x, jnp.int32(4)), WHOLE),
    "whole divisions": (lambda x: x // 4, WHOLE),
    "bits": (lambda x: (x & 6) | (x ^ 3), WHOLE),
    "logic": (lambda x: (x > 0) & ~(x > 1) | (x < -1) ^ (x != 5), X),
    "not finite": (lambda x: jnp.isfinite(1 / jnp.maximum(x, 0)), X),
    "clamped": (lambda x: lax.clamp(-0.5, x, 0.5), X),
    "half precision": (lambda x: lax.reduce_precision(x, 5, 10), X),
    "to whole numbers": (lambda x: (3 * x).astype(jnp.int32), X),
    "all and any": (lambda x: jnp.all(x > -1, axis=0) ^ jnp.any(x > 1, axis=0), X),
    "sums": (lambda x: x.sum(axis=(0, 2)) + x.max(axis=(0, 2)) - x.min(axis=(0, 2)), X),
    "product": (lambda x: jnp.prod(x, axis=1), X),
    "cumulative sum": (lambda x: jnp.cumsum(x, axis=1), X),
    "first of equal maxima": (lambda x: jnp.argmax(x) + 10 * jnp.argmin(x), TIES),
    "first that is true": (lambda x: jnp.argmax(x > 2.5), TIES),
    "equals stay in order": (jnp.argsort, TIES),
    "sorted along an axis": (lambda x: jnp.sort(x, axis=0), X),
    "best three": (lambda x: lax.top_k(x, 3)[0] + lax.top_k(x, 3)[1].astype(jnp.float32), TIES),
    "transposed, reversed": (lambda x: x.transpose(2, 0, 1)[::-1, :, ::-1], X),
    "slices": (lambda x: x[1:, ::2, :2], X),
    "padded": (lambda x: jnp.pad(x, ((1, 0), (0, 2), (1, 1)), constant_values=7.0), X),
    "cut by a padding": (lambda x: lax.pad(x, 0.0, ((-1, 0, 0), (0, -2, 0), (0, 0, 0))), X),
    "stacked": (lambda x: jnp.stack([x[0], 2 * x[1]], axis=1), X),
    "joined": (lambda x: jnp.concatenate([x, x[:, :1]], axis=1), X),
    "matrix product": (lambda x: x @ np.float32(WEIGHTS[:, :, 0]), X),
    "product with batches": (lambda x: jnp.einsum("abc,cbd->bda", x, WEIGHTS), X),
    "rows by index": (lambda x: x[jnp.array([2, 0, 3])], X),
    "points by index": (lambda x: x[jnp.array([2, 0]), jnp.array([4, 1]), jnp.array([0, 2])], X),
    "a column by a found index": (lambda x: x[:, jnp.argmax(x[0, :, 0])], X),
    "along an axis": (jax.vmap(lambda row: row[jnp.argsort(row[:, 0])]), X),
    "windows": (look_round, X),
    "a window": (lambda x: lax.dynamic_slice(x, (3, jnp.argmax(x[0, :, 0]), 0), (2, 3, 3)), X),
    "highest neighbour": (
        lambda x: lax.reduce_window(
            jnp.where(x > 0, x, -jnp.inf), -jnp.inf, lax.max, (3, 1, 3), (1, 1, 1), "SAME"
        ),
        X,
    ),
    "convolution in 3D": (
        lambda x: conv3d.conv3d(x[None, ..., None], KERNEL),
        X,
    ),
    "convolution in 2D": (lambda x: conv3d._conv2d(x[..., None], KERNEL[0]), X),
    "what is computed again": (jax.checkpoint(lambda x: jnp.sin(1.0) * x * x), X),
    "random numbers": (lambda x: x + jax.random.normal(jax.random.key(3), x.shape), X),
    "a loop that collects": (sum_in_a_loop, X),
    "a loop of one turn": (lambda x: sum_in_a_loop(x[:1]), X),
    "a loop until": (double_until_large, np.abs(X)),
    "loops in a loop": (count_to, TIES[::-1].copy()),
}


@pytest.mark.parametrize("name", PLAIN)
def test_an_operation(name):
    compare(*PLAIN[name])


@pytest.mark.parametrize("shape", [(4, 5, 3), (1, 2, 7)])
def test_sizes_are_known_when_they_come(shape):
    def function(x):
        middle = (jnp.array(x.shape, jnp.float32) - 1) / 2
        flat = jnp.sort(x.reshape(-1))[jnp.array(x.size) // 2]
        lines = jnp.arange(2 * x.shape[0] - 1 + x.shape[1] * x.shape[2]).astype(jnp.float32)
        wide = jnp.broadcast_to(x[:, None], (x.shape[0], 2, *x.shape[1:]))
        ends = jnp.concatenate([x, 2 * x]).sum(axis=0, keepdims=True)
        total = flat + jnp.sum(middle) + jnp.sum(lines)
        return wide.sum(axis=1) + jnp.broadcast_to(
            ends + jnp.broadcast_to(total, ends.shape), x.shape
        )

    content = make_file(function, X, symbols="x, y, z")
    given = np.float32(RNG.normal(size=shape))
    found = run_onnx(content, {"a": given})["out"]
    np.testing.assert_allclose(found, jax.jit(function)(given), rtol=1e-5, atol=1e-6)


def test_bfloat16_is_float32():
    def function(x):
        weights = jnp.array([1 / 3, 0.1, 7.7], jnp.float32).astype(jnp.bfloat16)
        return (x.astype(jnp.bfloat16) * (2 * weights).reshape(1, 1, 3)).astype(jnp.float32)

    found = run_onnx(make_file(function, X), {"a": X})["out"]
    np.testing.assert_allclose(found, X * np.array([2 / 3, 0.2, 15.4]), rtol=1e-6)


def test_two_inputs():
    compare(lambda a, b: a @ b.T, X[0], X[1])


def test_the_same_file_each_time_with_each_constant_once():
    def function(x):
        return x @ WEIGHTS[:, :, 0] + x @ (WEIGHTS[:, :, 0] + 0.0)

    content = make_file(function, X)
    assert content == make_file(function, X)
    model = onnx.load_from_string(content)
    sizes = [tuple(constant.dims) for constant in model.graph.initializer]
    assert sizes.count((3, 5)) == 1
    assert model.producer_name == "tests" and model.graph.name == "test"
    assert {entry.key: entry.value for entry in model.metadata_props} == {"why": "a test"}


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: jnp.sin(x), "JAX's sin"),
        (lambda x: lax.cond(x[0, 0, 0] > 0, lambda: x, lambda: 2 * x), "branch on data"),
        (lambda x: lax.scan(lambda c, r: (c, r), 0.0, x, reverse=True)[1], "from behind"),
        (lambda x: lax.pad(x, 0.0, ((0, 0, 1),) * 3), "between values"),
        (lambda x: lax.reduce_precision(x, 4, 3), "precision"),
    ],
)
def test_what_has_no_translation_is_named(function, why):
    with pytest.raises(NotImplementedError, match=why):
        make_file(function, X)


def test_a_size_that_has_no_translation_is_named():
    with pytest.raises(NotImplementedError, match="a size of floordiv"):
        make_file(lambda x: jnp.arange(x.shape[0] // 2), X, symbols="x, y, z")
