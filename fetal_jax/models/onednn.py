"""Convolution and matrix product in bfloat16 by the oneDNN that jaxlib carries.

oneDNN is what PyTorch runs on a CPU. XLA turns bfloat16 into float32 there, so that it gains
nothing; but a program can call oneDNN by the name that XLA has for it.
"""

import importlib.metadata
import json
import math
import platform
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp

# How oneDNN is called is XLA's own affair and may change: the jaxlib that were tried.
VERSIONS = ("0.10.2", "0.12.0.1")

# Whether a program that is traced now may call it.
allowed = jax.make_user_context(False)


@cache
def is_there() -> bool:
    """Whether this machine's processor and jaxlib have it."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return False
    flags = Path("/proc/cpuinfo").read_text()
    return "avx512_bf16" in flags and importlib.metadata.version("jaxlib") in VERSIONS


def is_called(lowered: jax.stages.Lowered) -> bool:
    """Whether a program calls it; then it cannot be kept on disk, for jaxlib fails to write it."""
    return f"@{_TARGET}" in lowered.as_text()


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv3d.conv3d` of bfloat16 [B, D, H, W, C] and [3, 3, 3, C, F], summed in float32."""
    volume = dict(batch_dim=0, feature_dim=4, spatial_dims=(1, 2, 3))
    weights = dict(output_feature_dim=4, input_feature_dim=3, spatial_dims=(0, 1, 2))
    once = (1, 1, 1)
    settings = dict(
        dims=5,
        input=dict(dims=5, data=volume),
        kernel=dict(dims=5, filter=weights),
        output=dict(dims=5, data=volume),
        window=dict(
            size=(3, 3, 3), pad_left=once, pad_right=once, strides=once, window_dilations=once
        ),
        feature_groups=1,
    )
    out = jax.ShapeDtypeStruct((*x.shape[:-1], kernel.shape[-1]), x.dtype)
    return _call("convolution", {"onednn_conv_config": settings}, out, x, kernel)


@jax.custom_vjp
def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b of bfloat16 [N, C] and [C, F], summed in float32: [N, F] bfloat16."""
    out = jax.ShapeDtypeStruct((a.shape[0], b.shape[1]), a.dtype)
    return _call("matmul", {"onednn_matmul_config": {}}, out, a, b)


def _multiply_forward(a, b):
    return multiply(a, b), (a, b)


def _multiply_backward(kept, g):
    a, b = kept
    return multiply(g, b.T), multiply_transposed(a, g).astype(b.dtype)


multiply.defvjp(_multiply_forward, _multiply_backward)


def multiply_transposed(a: jax.Array, b: jax.Array) -> jax.Array:
    """aᵀ b of bfloat16 [..., N, C] and [..., N, F]: [..., C, F] float32."""
    out = jax.ShapeDtypeStruct((*a.shape[:-2], a.shape[-1], b.shape[-1]), jnp.float32)
    return _call("matmul", {"onednn_matmul_config": {"transpose_a": True}}, out, a, b)


@jax.custom_vjp
def sum_voxels(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums over N of x and of x², for [B, N, C] float32 that holds bfloat16 values: [B, C] float32.

    x² is the diagonal of xᵀ x: 2 C operations for each value, but nothing is read as float32.
    """
    b, n, c = x.shape
    parts = math.gcd(n, 16)  # for so many threads at most
    x = x.astype(jnp.bfloat16).reshape(b, parts, n // parts, c)
    total = multiply_transposed(jnp.ones_like(x[..., :1]), x)[..., 0, :]
    squares = jnp.diagonal(multiply_transposed(x, x), axis1=-2, axis2=-1)
    return total.sum(1), squares.sum(1)


def _sum_forward(x):
    return sum_voxels(x), x


def _sum_backward(x, g):
    of_total, of_squares = g
    return (of_total[:, None] + 2 * x * of_squares[:, None],)


sum_voxels.defvjp(_sum_forward, _sum_backward)


_TARGET = "__onednn$"


def _call(name, settings, out, *args):
    call = jax.ffi.ffi_call(
        _TARGET + name,
        out,
        vmap_method="sequential",
        custom_call_api_version=1,
        legacy_backend_config=json.dumps(settings),
    )
    return call(*args)
