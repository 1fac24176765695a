"""3D convolution, pooling and upsampling, channels last.

The convolution has three lowerings. XLA's own 3D convolution is several times slower on a CPU than
its 2D one, so there a 3x3x3 convolution is made of 2D ones, with the depth folded into the batch.
In bfloat16 it is oneDNN's, where the program may call that. On a GPU or TPU the native convolution
is used.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fetal_jax.models import onednn


def conv3d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves with stride 1 and zero padding that keeps the size.

    Args:
      x: [B, D, H, W, C].
      kernel: [K, K, K, C, F], K 1 or 3.

    Returns:
      [B, D, H, W, F], in the dtype of `x`.
    """
    if x.ndim != 5 or kernel.ndim != 5 or x.shape[-1] != kernel.shape[3]:
        raise ValueError(
            f"expected x [B, D, H, W, C] and kernel [K, K, K, C, F], got {x.shape}, {kernel.shape}"
        )
    if kernel.shape[:3] == (1, 1, 1):
        return multiply(x, kernel[0, 0, 0])
    if kernel.shape[:3] != (3, 3, 3):
        raise ValueError(f"expected a kernel of 1x1x1 or 3x3x3, got {kernel.shape[:3]}")
    return _conv3d(x, kernel)


def conv3d_native(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv3d` as one XLA convolution."""
    dims = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), "SAME", dimension_numbers=dims)


def conv3d_winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv3d` by four 2D convolutions for two output planes, where the sum over taps takes six.

    Winograd's F(2, 3) along the depth (Lavin and Gray, CVPR 2016), in float32.
    """
    planes = x.astype(jnp.float32)
    if x.shape[1] % 2:
        planes = jnp.pad(planes, ((0, 0), (0, 1), (0, 0), (0, 0), (0, 0)))
    b, d, h, w, c = planes.shape
    pairs = planes.reshape(b, d // 2, 2, h, w, c)
    even, odd = pairs[:, :, 0], pairs[:, :, 1]
    first, middle, last = kernel.astype(jnp.float32)
    products = [
        _conv2d(_fold_depth(planes), tap)
        for planes, tap in (
            (_shift(odd, 1) - odd, first),
            (even + odd, (first + middle + last) / 2),
            (odd - even, (first - middle + last) / 2),
            (even - _shift(even, -1), last),
        )
    ]
    a, p, m, z = products
    y = jnp.stack([a + p + m, p - m - z], axis=1).reshape(b, d, h, w, -1)
    return y[:, : x.shape[1]].astype(x.dtype)


def multiply(x: jax.Array, weights: jax.Array) -> jax.Array:
    """[..., C] @ [C, F] in the dtype of `x`, summed in float32: a CPU has no faster sum."""
    if x.dtype == jnp.bfloat16 and onednn.allowed.value:
        flat = onednn.multiply(x.reshape(-1, x.shape[-1]), weights)
        return flat.reshape(*x.shape[:-1], -1)
    return jnp.matmul(x, weights, preferred_element_type=jnp.float32).astype(x.dtype)


def sum_voxels(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums over N of x and of x²: [B, N, C] to [B, C], in float32.

    As matrix products, for a reduction over space is slow on a CPU.
    """
    values = x.astype(jnp.float32)
    if x.dtype == jnp.bfloat16 and onednn.allowed.value:
        return onednn.sum_voxels(values)
    ones = jnp.ones((x.shape[0], 1, x.shape[1]), jnp.float32)

    def total(values):
        return jnp.matmul(ones, values, precision="highest").squeeze(1)

    # in this order: a gradient is added up in the order of what it is of, to float32's last bit
    return total(values), total(values * values)


def _by_onednn(x):
    # of one plane with one channel it returns what was in memory before
    return x.dtype == jnp.bfloat16 and x.shape[1] > 1 and onednn.allowed.value


def _on_cpu(x, kernel):
    return onednn.convolve(x, kernel) if _by_onednn(x) else conv3d_winograd(x, kernel)


def _gradients_on_cpu(x, kernel, g):
    grad_x = _on_cpu(g, kernel[::-1, ::-1, ::-1].swapaxes(3, 4))
    if _by_onednn(x):
        return grad_x, _multiply_patches(x, g).astype(kernel.dtype)
    c, features = kernel.shape[3:]
    # the three depth taps as channels of one convolution: x is rearranged once and not three times
    taps = jnp.concatenate([_shift(g, -1), g, _shift(g, 1)], axis=-1).astype(jnp.float32)
    of_taps = jax.linear_transpose(
        lambda k: _conv2d(_fold_depth(x.astype(jnp.float32)), k),
        jax.ShapeDtypeStruct((3, 3, c, 3 * features), jnp.float32),
    )
    (grad_kernel,) = of_taps(_fold_depth(taps))
    grad_kernel = jnp.moveaxis(grad_kernel.reshape(3, 3, c, 3, features), 3, 0)
    return grad_x, grad_kernel.astype(kernel.dtype)


def _multiply_patches(x, g):
    """The kernel's gradient: 3x3 patches of x times three planes of g, a few planes at a time.

    [B, D, H, W, C] and [B, D, H, W, F] in bfloat16 to [3, 3, 3, C, F] float32.
    """
    b, d, h, w, c = x.shape
    features = g.shape[-1]
    # as many planes as still lie in a processor's cache
    planes = next(n for n in range(1, d + 1) if d % n == 0 and (n * h * w >= 8192 or n == d))
    x, g = _to_words(x), _to_words(g)
    words = x.shape[-1]
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))).reshape(b * d, h + 2, -1)
    rows = _read_windows(padded, (b * d, h + 2, w), (1, 1, 3 * words), stride=words)
    g = jnp.pad(g, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))

    def add(i, total):
        example, plane = jnp.divmod(i * planes, d)
        part = lax.dynamic_slice_in_dim(rows, i * planes, planes)
        patches = _read_windows(part, (planes, h, w), (1, 3, 1, 3 * words))
        part = lax.dynamic_slice_in_dim(g[example], plane, planes + 2)
        taps = _read_windows(part, (planes, h, w), (3, 1, 1, g.shape[-1]))
        return total + onednn.multiply_transposed(_from_words(patches), _from_words(taps))

    start = jnp.zeros((9 * c, 3 * features), jnp.float32)
    total = lax.fori_loop(0, b * d // planes, add, start).reshape(3, 3, c, 3, features)
    return jnp.moveaxis(total[:, :, :, ::-1], 3, 0)


def _read_windows(x, places, window, stride=1):
    """[*places, size]: the windows of x that begin at places of its first three axes."""
    begin = np.stack(np.indices(places), axis=-1).astype(np.int32) * np.int32([1, 1, stride])
    kept = tuple(range(1, 1 + len(window)))
    return lax.gather(
        x,
        begin.reshape(-1, 3),
        lax.GatherDimensionNumbers(kept, (), (0, 1, 2)),
        window,
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    ).reshape(*places, -1)


def _to_words(x):
    """bfloat16 [..., C] as integers, two values in each: a CPU would move them as float32."""
    if x.shape[-1] % 2:
        return lax.bitcast_convert_type(x, jnp.uint16)
    return lax.bitcast_convert_type(x.reshape(*x.shape[:-1], -1, 2), jnp.uint32)


def _from_words(words):
    """[..., C] of `_to_words` to bfloat16 [N, C]."""
    values = lax.bitcast_convert_type(words, jnp.bfloat16)
    return values.reshape(math.prod(words.shape[:-1]), -1)


def _shift(x, planes):
    """x[d - planes], zero where that is outside."""
    before, after = max(planes, 0), max(-planes, 0)
    padded = jnp.pad(x, ((0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)))
    return padded[:, after : after + x.shape[1]]


def _fold_depth(x):
    """[B, D, H, W, C] to [B D, H, W, C]."""
    return x.reshape(-1, *x.shape[2:])


def _conv2d(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# A gradient of its own, so that what is kept for the backward pass is x and the kernel, and not the
# residuals of both lowerings.
@jax.custom_vjp
def _conv3d(x, kernel):
    return lax.platform_dependent(x, kernel, cpu=_on_cpu, default=conv3d_native)


def _conv3d_forward(x, kernel):
    return _conv3d(x, kernel), (x, kernel)


def _conv3d_backward(kept, g):
    def native(x, kernel, g):
        return jax.vjp(conv3d_native, x, kernel)[1](g)

    return lax.platform_dependent(*kept, g, cpu=_gradients_on_cpu, default=native)


_conv3d.defvjp(_conv3d_forward, _conv3d_backward)


def join_blocks(x: jax.Array) -> jax.Array:
    """[B, D, H, W, 8, C] to [B, 2D, 2H, 2W, C]: the last eight become 2x2x2 voxels."""
    if x.ndim != 6 or x.shape[4] != 8:
        raise ValueError(f"expected x [B, D, H, W, 8, C], got {x.shape}")
    b, d, h, w, _, c = x.shape
    x = x.reshape(b, d, h, w, 2, 2, 2, c).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, 2 * d, 2 * h, 2 * w, c)


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over blocks of 2x2x2: [B, D, H, W, C] to [B, D/2, H/2, W/2, C]."""
    b, d, h, w, c = x.shape
    if d % 2 or h % 2 or w % 2:
        raise ValueError(f"expected even sizes, got {(d, h, w)}")
    return x.reshape(b, d // 2, 2, h // 2, 2, w // 2, 2, c).max(axis=(2, 4, 6))


def upsample(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution with a 2x2x2 kernel and stride 2, as one matrix product.

    Args:
      x: [B, D, H, W, C].
      kernel: [C, 8, F], the eight 2x2x2 offsets in the order of `join_blocks`.

    Returns:
      [B, 2D, 2H, 2W, F].
    """
    if x.ndim != 5 or kernel.ndim != 3 or kernel.shape[:2] != (x.shape[-1], 8):
        raise ValueError(
            f"expected x [B, D, H, W, C] and kernel [C, 8, F], got {x.shape} and {kernel.shape}"
        )
    c, blocks, features = kernel.shape
    y = multiply(x, kernel.reshape(c, blocks * features))
    return join_blocks(y.reshape(*x.shape[:-1], blocks, features))
