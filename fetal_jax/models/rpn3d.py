"""An RPN-style detector, cubic boxes for maps: our reconstruction of the study's baseline."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from fetal_jax.models import conv3d as ops
from fetal_jax.models.resunet3d import Conv3D, Norm, ResidualBlock, up_kernel_init

PRIOR_SCORE = 0.01  # a cell's chance of holding the landmark, before anything is learnt


class RPN3D(nn.Module):
    """Volumes [B, D, H, W, 1] to outputs [B, L, M, 5]: M cells, each score, shift and log size.

    An encoder of residual blocks; its deeper levels are brought back up to the level of the cells,
    so that a cell sees the whole face.

    Attributes:
      landmarks: L.
      widths: channels at each level, finest first; sides must divide by 2^(levels - 1).
      stride: voxels between cells, a power of two below 2^levels.
      groups, shortcut_size, dtype: as in `ResUNet3D`.
    """

    landmarks: int
    widths: Sequence[int] = (16, 32, 64, 128)
    stride: int = 4
    groups: int = 0
    shortcut_size: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        levels = len(self.widths)
        factor = 2 ** (levels - 1)
        if x.ndim != 5 or x.shape[-1] != 1 or any(n % factor for n in x.shape[1:4]):
            raise ValueError(
                f"expected volumes [B, D, H, W, 1], sides a multiple of {factor}, got {x.shape}"
            )
        cell_level = self.stride.bit_length() - 1
        if 2**cell_level != self.stride or cell_level >= levels:
            raise ValueError(f"expected a stride of 1, 2, 4, ... up to {factor}, got {self.stride}")
        x = x.astype(self.dtype)
        skips = []
        for level, width in enumerate(self.widths):
            if level:
                x = ops.max_pool(x)
            x = self._block(width, activate_first=level > 0, name=f"down{level}")(x)
            skips.append(x)
        for level in reversed(range(cell_level, levels - 1)):
            width = self.widths[level]
            kernel = self.param(f"up{level}_kernel", up_kernel_init, (x.shape[-1], 8, width))
            x = ops.upsample(x, kernel.astype(x.dtype))
            x = self._block(width, name=f"merge{level}")(
                jnp.concatenate([skips[level], x], axis=-1)
            )
        x = nn.leaky_relu(Norm(self.groups, name="norm_out")(x))
        x = nn.leaky_relu(Conv3D(x.shape[-1], name="head")(x))
        # small, so that every box starts as its anchor
        kernel = self.param(
            "outputs_kernel",
            nn.initializers.normal(0.01),
            (x.shape[-1], self.landmarks * 5),
        )
        flat = x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)
        out = jnp.matmul(flat, kernel).reshape(*flat.shape[:2], self.landmarks, 5)
        bias = self.param("outputs_bias", _score_bias, (self.landmarks, 5))
        return jnp.swapaxes(out + bias[None, None], 1, 2)

    def _block(self, width, *, activate_first=True, name):
        return ResidualBlock(width, self.groups, self.shortcut_size, activate_first, name=name)


def _score_bias(key, shape, dtype=jnp.float32):
    del key
    start = -math.log(1 / PRIOR_SCORE - 1)
    return jnp.zeros(shape, dtype).at[:, 0].set(start)
