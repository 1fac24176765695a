"""3D convolution, pooling and upsampling, channels last.

The convolution has two lowerings. XLA's own 3D convolution is several times slower on a CPU than
its 2D one, so there a 3x3x3 convolution is made of 2D ones, with the depth folded into the batch.
On a GPU or TPU the native convolution is used.
"""

import jax
import jax.numpy as jnp
from jax import lax


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
        return x @ kernel[0, 0, 0]
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


def _gradients_on_cpu(x, kernel, g):
    grad_x = conv3d_winograd(g, kernel[::-1, ::-1, ::-1].swapaxes(3, 4))
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
    return lax.platform_dependent(x, kernel, cpu=conv3d_winograd, default=conv3d_native)


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
    y = x @ kernel.reshape(c, blocks * features)
    return join_blocks(y.reshape(*x.shape[:-1], blocks, features))
