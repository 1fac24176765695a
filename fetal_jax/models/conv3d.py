"""3D convolution, pooling and upsampling, channels last.

The convolution has two lowerings. XLA's own 3D convolution is several times slower on a CPU than
its 2D one, so there a 3D kernel is summed over its depth taps, each a 2D convolution with the depth
folded into the batch. The sum is exact. On a GPU or TPU the native convolution is used.
"""

import jax
import jax.numpy as jnp
from jax import lax


def conv3d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves with stride 1 and zero padding that keeps the size.

    Args:
      x: [B, D, H, W, C].
      kernel: [K, K, K, C, F], K odd.

    Returns:
      [B, D, H, W, F], in the dtype of `x`.
    """
    if x.ndim != 5 or kernel.ndim != 5 or x.shape[-1] != kernel.shape[3]:
        raise ValueError(
            f"expected x [B, D, H, W, C] and kernel [K, K, K, C, F], got {x.shape}, {kernel.shape}"
        )
    if any(k % 2 == 0 for k in kernel.shape[:3]):
        raise ValueError(f"expected an odd kernel size, got {kernel.shape[:3]}")
    if kernel.shape[:3] == (1, 1, 1):
        return x @ kernel[0, 0, 0]
    return _conv3d(x, kernel)


def conv3d_native(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv3d` as one XLA convolution."""
    dims = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), "SAME", dimension_numbers=dims)


def conv3d_taps(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`conv3d` as a sum over depth taps of 2D convolutions."""
    b, d, h, w, c = x.shape
    taps, features = kernel.shape[0], kernel.shape[-1]
    pad = taps // 2
    padded = jnp.pad(x, ((0, 0), (pad, pad), (0, 0), (0, 0), (0, 0)))

    def tap(k):
        rows = padded[:, k : k + d].reshape(b * d, h, w, c)  # depth joins the batch
        dims = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(rows, kernel[k], (1, 1), "SAME", dimension_numbers=dims)

    return sum(tap(k) for k in range(taps)).reshape(b, d, h, w, features)


# A gradient of its own, so that what is kept for the backward pass is x and the kernel, and not the
# residuals of both lowerings.
@jax.custom_vjp
def _conv3d(x, kernel):
    return lax.platform_dependent(x, kernel, cpu=conv3d_taps, default=conv3d_native)


def _conv3d_forward(x, kernel):
    return _conv3d(x, kernel), (x, kernel)


def _conv3d_backward(kept, g):
    def pull_back(form):
        return lambda x, kernel, g: jax.vjp(form, x, kernel)[1](g)

    return lax.platform_dependent(
        *kept, g, cpu=pull_back(conv3d_taps), default=pull_back(conv3d_native)
    )


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
